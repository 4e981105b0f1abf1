from tests.methods.traits import Traits

TRAITS = Traits(exact=False)  # at rho = 0 the orthogonal part is rounding
