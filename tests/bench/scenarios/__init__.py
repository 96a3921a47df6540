"""One file for each part of the table.

SIDES are generators that set up, yield once, and then yield one sample for each time they are asked.
`rows` compares them.
"""
