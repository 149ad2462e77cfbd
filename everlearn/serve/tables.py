"""The tables of the log, in words that SQLite and Postgres both take."""

from everlearn.serve.database import Database

FORMAT = "1"


def tables(database: Database) -> list[str]:
    """The statements that make the tables where they are missing."""
    key, blob, real = database.key, database.blob, database.real
    big = "INTEGER" if database.name == "sqlite" else "BIGINT"
    return [
        f"CREATE TABLE IF NOT EXISTS event (seq {key}, kind TEXT NOT NULL, id TEXT NOT NULL, revision {big} NOT NULL, hash {blob} NOT NULL,"
        f" x {blob}, y TEXT, output TEXT, version {big}, created {real} NOT NULL, source TEXT NOT NULL DEFAULT '')",
        "CREATE UNIQUE INDEX IF NOT EXISTS event_id ON event (id, kind, revision)",
        f"CREATE TABLE IF NOT EXISTS early (id TEXT NOT NULL, revision {big} NOT NULL, hash {blob} NOT NULL, y TEXT NOT NULL,"
        f" created {real} NOT NULL, PRIMARY KEY (id, revision))",
        f"CREATE TABLE IF NOT EXISTS step (branch {big} NOT NULL, number {big} NOT NULL, first {big} NOT NULL, last {big} NOT NULL,"
        f" reason TEXT NOT NULL, created {real} NOT NULL, PRIMARY KEY (branch, number))",
        f"CREATE TABLE IF NOT EXISTS version (version {big} PRIMARY KEY, parent {big}, branch {big} NOT NULL, number {big} NOT NULL,"
        f" applied_seq {big} NOT NULL, sha256 TEXT NOT NULL, state TEXT NOT NULL, created {real} NOT NULL, score {real},"
        f" service_score {real}, row_count {big} NOT NULL, bytes {big} NOT NULL, reason TEXT NOT NULL, promoted {big} NOT NULL)",
        f"CREATE TABLE IF NOT EXISTS branch (branch {big} PRIMARY KEY, version {big} NOT NULL, applied_seq {big} NOT NULL,"
        f" holes TEXT NOT NULL, service {big} NOT NULL, created {real} NOT NULL)",
        f"CREATE TABLE IF NOT EXISTS decision (number {key}, time {real} NOT NULL, seq {big} NOT NULL, action TEXT NOT NULL,"
        f" from_version {big}, to_version {big}, reason TEXT NOT NULL, who TEXT NOT NULL)",
        f"CREATE TABLE IF NOT EXISTS alarm (number {key}, time {real} NOT NULL, seq {big} NOT NULL, kind TEXT NOT NULL,"
        f" value {real} NOT NULL, limit_value {real} NOT NULL, message TEXT NOT NULL, UNIQUE (kind, seq))",
        f"CREATE TABLE IF NOT EXISTS point (seq {big} PRIMARY KEY, time {real} NOT NULL, score {real}, version {big} NOT NULL,"
        f" lag {big} NOT NULL, inputs {big} NOT NULL, answers {big} NOT NULL)",
        f"CREATE TABLE IF NOT EXISTS command (number {key}, kind TEXT NOT NULL, body TEXT NOT NULL, created {real} NOT NULL, result TEXT)",
        "CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    ]
