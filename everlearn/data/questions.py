"""Query problems by their call names: `best_arm(n=8, horizon=48)`, `question_table('plants.csv')`."""

from everlearn.data.query_families import best_arm, thresholds, top_k
from everlearn.data.query_tables import animals, question_table

QUESTIONS = {
    "thresholds": thresholds,
    "best_arm": best_arm,
    "top_k": top_k,
    "question_table": question_table,
    "animals": animals,
}
