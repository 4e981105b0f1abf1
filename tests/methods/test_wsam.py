from tests.methods.traits import Traits

# At rho = 0 it is -8 g + 9 g; nine times the sharpness is too much for the steep
# objectives of the suite.
TRAITS = Traits(exact=False)
