-- Who may use the pages of administrators. ACCESS: R reads, W writes. Of passwords only hashes are kept.
CREATE TABLE IF NOT EXISTS vestnik_administrator (
  ID {id}, LOGIN VARCHAR(100) NOT NULL, PASSWORD_HASH VARCHAR(255) NOT NULL, ACCESS VARCHAR(1) NOT NULL,
  DATE_CREATE {datetime} NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_administrator ON vestnik_administrator (LOGIN);

-- Of the secret in a browser's cookie only the hash is kept.
CREATE TABLE IF NOT EXISTS vestnik_session (
  ID {id}, TOKEN_HASH VARCHAR(64) NOT NULL, LOGIN VARCHAR(100) NOT NULL, FORM_KEY VARCHAR(64) NOT NULL,
  DATE_EXPIRE {datetime} NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_session ON vestnik_session (TOKEN_HASH);
CREATE INDEX ix_vestnik_session_expire ON vestnik_session (DATE_EXPIRE);

-- What was changed, by whom; secrets are masked.
CREATE TABLE IF NOT EXISTS vestnik_audit (
  ID {id}, TENANT_ID INT NOT NULL, DATE_CREATE {datetime} NOT NULL, LOGIN VARCHAR(100) NOT NULL,
  ADDRESS VARCHAR(50) NOT NULL, ACTION VARCHAR(50) NOT NULL, NAME VARCHAR(100) NOT NULL,
  OLD_VALUE {text} NOT NULL, NEW_VALUE {text} NOT NULL
){options};
CREATE INDEX ix_vestnik_audit_date ON vestnik_audit (TENANT_ID, DATE_CREATE);
