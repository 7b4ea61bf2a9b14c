"""What fine-tunes will take: forecasts of the core, corrected by what finished jobs took, and what fits.

domain     an estimate, and how it follows from a forecast, from records and from rooms
families   the registry of model families, as far as forecasts need it
records    what finished jobs took, beside what they were estimated to
estimator  the use case
convert    messages to values and back
"""
