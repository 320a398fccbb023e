"""``finbench sweep``: a grid of trainings and their scorecards, on Ray.

spec      a YAML file of axes -> cells, each a recipe with what it needs and a key of its content
places    the folder or URL of the results: one small file a finished step
work      what one worker does: a search, a training, an evaluation
driver    which step when, and what is lost when something dies
"""
