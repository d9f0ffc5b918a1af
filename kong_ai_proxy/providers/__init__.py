"""Where each provider lives and what it speaks: a module, or a package where it does more than one
call for some capability.

A package has the provider's row in `__init__` and a module for each capability that is a flow:
`bedrock/images.py` says which calls make an image, `formats/bedrock/images.py` what is in them,
`images.py` what is common to all providers, `flow.py` what a flow is. `registry.py` lists them all.
"""
