"""The oracles by name: `ridge(strength)` (also `linear`), `logistic(C)`, `boosted(rounds)`, `estimator(make)`, `network(hidden)`."""

from everlearn.agents.oracle_logistic import Logistic
from everlearn.agents.oracle_network import Network
from everlearn.agents.oracle_trees import Boosted, Estimator
from everlearn.agents.oracles import Ridge

ORACLES = {cls.name: cls for cls in (Ridge, Logistic, Boosted, Estimator, Network)} | {"linear": Ridge}
