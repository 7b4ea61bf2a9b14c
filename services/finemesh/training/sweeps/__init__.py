"""Sweeps: the same fine-tune with different values of some fields, each trial an ordinary training job.

    space       which combinations there are, and which are drawn
    halving     where trials are compared, and how many go on
    metrics     what trials are compared by, and which way is better
    drafts      what a request asks for, checked: every combination before any starts
    domain      a sweep, and what follows from what its jobs have come to: pure functions
    convert, events, store, servicer, controller

The controller decides from SQL alone, and what it decides is one transaction with what it does to jobs: it
may die at any moment, and goes on where it was.
"""
