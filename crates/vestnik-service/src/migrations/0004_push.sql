-- Batches of notifications that wait for the gateway. Whoever sends one moves DATE_NEXT first.
CREATE TABLE IF NOT EXISTS vestnik_push_batch (
  ID {id}, TENANT_ID INT NOT NULL, BODY {text} NOT NULL, SIZE BIGINT NOT NULL, TRIES BIGINT NOT NULL,
  DATE_NEXT {datetime} NOT NULL, DATE_EXPIRE {datetime} NOT NULL
){options};
CREATE INDEX ix_vestnik_push_batch_tenant ON vestnik_push_batch (TENANT_ID, DATE_NEXT);
CREATE INDEX ix_vestnik_push_batch_next ON vestnik_push_batch (DATE_NEXT);
