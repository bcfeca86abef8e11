-- Batches of notifications that wait for the gateway. Whoever sends one claims it until DATE_NEXT.
CREATE TABLE IF NOT EXISTS vestnik_push_batch (
  ID {id}, TENANT_ID INT NOT NULL, SIZE BIGINT NOT NULL, TRIES BIGINT NOT NULL, CLAIMED INT NOT NULL,
  DATE_NEXT {datetime} NOT NULL, DATE_EXPIRE {datetime} NOT NULL, BODY {text} NOT NULL
){options};
CREATE INDEX ix_vestnik_push_batch_tenant ON vestnik_push_batch (TENANT_ID, CLAIMED, DATE_NEXT);
CREATE INDEX ix_vestnik_push_batch_size ON vestnik_push_batch (TENANT_ID, SIZE);
CREATE INDEX ix_vestnik_push_batch_next ON vestnik_push_batch (DATE_NEXT);
CREATE INDEX ix_vestnik_push_batch_expire ON vestnik_push_batch (DATE_EXPIRE);
