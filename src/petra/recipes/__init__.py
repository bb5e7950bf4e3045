"""Pipelines that are worth trying before a search has learnt anything: `portfolio.py` has them as
data, `make.py` makes legal pipelines of a study's own space of them.
"""

from petra.recipes.make import circumstances as circumstances
from petra.recipes.make import make_recipes as make_recipes
from petra.recipes.make import those_that_act as those_that_act
from petra.recipes.stored import recipe_notes as recipe_notes
from petra.recipes.stored import stored_recipes as stored_recipes
