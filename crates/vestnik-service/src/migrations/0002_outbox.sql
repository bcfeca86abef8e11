-- Events that were accepted and wait for their queue server.
CREATE TABLE IF NOT EXISTS vestnik_outbox (
  ID {id}, TENANT_ID INT NOT NULL, EVENT {text} NOT NULL, SIZE BIGINT NOT NULL, DATE_CREATE {datetime} NOT NULL,
  DATE_EXPIRE {datetime} NOT NULL
){options};
CREATE INDEX ix_vestnik_outbox_tenant ON vestnik_outbox (TENANT_ID, ID);
