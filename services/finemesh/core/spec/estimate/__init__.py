"""What a fine-tune will need before it is begun: memory, time and cost as intervals, by closed forms.

interval     low, likely and high of a figure
activations  what the backward pass needs of a token or a pixel, by family
base_model   what can be known of a base model without loading it: configuration and shapes of tensors
memory       bytes of one process, by what holds them
duration     floating-point operations, seconds and price
nearest      the settings nearest to a spec that fit into a given memory
folder       a base model in a folder
"""
