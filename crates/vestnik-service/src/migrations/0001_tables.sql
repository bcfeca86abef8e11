-- Tables of the PHP module keep its names, so that its rows can be taken over and written by both;
-- TENANT_ID is ours and falls to the default tenant where the PHP module inserts.

CREATE TABLE IF NOT EXISTS b_pull_channel (
  ID {id}, TENANT_ID INT NOT NULL DEFAULT 1, USER_ID BIGINT NOT NULL, CHANNEL_TYPE VARCHAR(255),
  CHANNEL_ID VARCHAR(50) NOT NULL, CHANNEL_PUBLIC_ID VARCHAR(50), LAST_ID BIGINT, DATE_CREATE {datetime} NOT NULL
){options};
CREATE UNIQUE INDEX ix_pull_channel_tenant ON b_pull_channel (TENANT_ID, USER_ID, CHANNEL_TYPE);
CREATE INDEX ix_b_pull_channel_tenant_channel ON b_pull_channel (TENANT_ID, CHANNEL_ID);
CREATE INDEX ix_b_pull_channel_channel_public_id ON b_pull_channel (CHANNEL_PUBLIC_ID);
CREATE INDEX ix_b_pull_channel_tenant_date ON b_pull_channel (TENANT_ID, DATE_CREATE);

CREATE TABLE IF NOT EXISTS b_pull_watch (
  ID {id}, TENANT_ID INT NOT NULL DEFAULT 1, USER_ID BIGINT NOT NULL, CHANNEL_ID VARCHAR(50) NOT NULL,
  TAG VARCHAR(255) NOT NULL, DATE_CREATE {datetime} NOT NULL
){options};
CREATE INDEX ix_b_pull_watch_user_tag ON b_pull_watch (TENANT_ID, USER_ID, TAG);
CREATE INDEX ix_b_pull_watch_tenant_tag ON b_pull_watch (TENANT_ID, TAG, USER_ID);
CREATE INDEX ix_b_pull_watch_date_create ON b_pull_watch (DATE_CREATE);

CREATE TABLE IF NOT EXISTS b_pull_stack (
  ID {id}, TENANT_ID INT NOT NULL DEFAULT 1, CHANNEL_ID VARCHAR(50) NOT NULL, MESSAGE {text} NOT NULL,
  DATE_CREATE {datetime} NOT NULL
){options};
CREATE INDEX ix_b_pull_stack_channel_id ON b_pull_stack (CHANNEL_ID);
CREATE INDEX ix_b_pull_stack_date_create ON b_pull_stack (DATE_CREATE);

CREATE TABLE IF NOT EXISTS b_pull_push (
  ID {id}, TENANT_ID INT NOT NULL DEFAULT 1, USER_ID BIGINT NOT NULL, DEVICE_TYPE VARCHAR(50), APP_ID VARCHAR(50),
  UNIQUE_HASH VARCHAR(50), DEVICE_ID VARCHAR(255), DEVICE_NAME VARCHAR(50), DEVICE_TOKEN VARCHAR(255) DEFAULT '' NOT NULL,
  VOIP_TYPE VARCHAR(50), VOIP_TOKEN VARCHAR(255), DATE_CREATE {datetime} NOT NULL, DATE_AUTH {datetime}
){options};
CREATE INDEX ix_b_pull_push_user_id ON b_pull_push (TENANT_ID, USER_ID);
CREATE INDEX ix_b_pull_push_unique_hash ON b_pull_push (UNIQUE_HASH);
CREATE INDEX ix_b_pull_push_device_token ON b_pull_push (DEVICE_TOKEN);
CREATE INDEX ix_b_pull_push_voip_token ON b_pull_push (VOIP_TOKEN);

CREATE TABLE IF NOT EXISTS b_pull_push_queue (
  ID {id}, TENANT_ID INT NOT NULL DEFAULT 1, USER_ID BIGINT NOT NULL, TAG VARCHAR(255), SUB_TAG VARCHAR(255),
  MESSAGE {text}, PARAMS {text}, ADVANCED_PARAMS {text}, BADGE INT, DATE_CREATE {datetime}, APP_ID VARCHAR(50)
){options};
CREATE INDEX ix_b_pull_push_queue_tag ON b_pull_push_queue (TENANT_ID, USER_ID, TAG);
CREATE INDEX ix_b_pull_push_queue_sub_tag ON b_pull_push_queue (TENANT_ID, USER_ID, SUB_TAG);
CREATE INDEX ix_b_pull_push_queue_date_create ON b_pull_push_queue (DATE_CREATE);
CREATE INDEX ix_b_pull_push_queue_app_id ON b_pull_push_queue (APP_ID);

CREATE TABLE IF NOT EXISTS vestnik_tenant (
  ID {id}, HOST_ID VARCHAR(64) NOT NULL, NAME VARCHAR(255) NOT NULL, ACTIVE VARCHAR(1) DEFAULT 'Y' NOT NULL,
  DATE_CREATE {datetime} NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_tenant ON vestnik_tenant (HOST_ID);

-- SITE_ID is empty for values common to all sites of the tenant.
CREATE TABLE IF NOT EXISTS vestnik_option (
  ID {id}, TENANT_ID INT NOT NULL, SITE_ID VARCHAR(50) NOT NULL, NAME VARCHAR(100) NOT NULL, VALUE {text} NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_option ON vestnik_option (TENANT_ID, SITE_ID, NAME);

CREATE TABLE IF NOT EXISTS vestnik_site (
  ID {id}, TENANT_ID INT NOT NULL, SITE_ID VARCHAR(50) NOT NULL, NAME VARCHAR(255) NOT NULL,
  SERVER_NAME VARCHAR(255) NOT NULL, ACTIVE VARCHAR(1) DEFAULT 'Y' NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_site ON vestnik_site (TENANT_ID, SITE_ID);

CREATE TABLE IF NOT EXISTS vestnik_module (
  ID {id}, TENANT_ID INT NOT NULL, MODULE_ID VARCHAR(50) NOT NULL, ADMIN_SECTION VARCHAR(1) NOT NULL,
  PUBLIC_SECTION VARCHAR(1) NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_module ON vestnik_module (TENANT_ID, MODULE_ID);

CREATE TABLE IF NOT EXISTS vestnik_application (
  ID {id}, TENANT_ID INT NOT NULL, CLIENT_ID VARCHAR(50) NOT NULL, NAME VARCHAR(255) NOT NULL,
  ACTIVE VARCHAR(1) DEFAULT 'Y' NOT NULL, DATE_CREATE {datetime} NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_application ON vestnik_application (TENANT_ID, CLIENT_ID);

CREATE TABLE IF NOT EXISTS vestnik_user (
  ID {id}, TENANT_ID INT NOT NULL, USER_ID BIGINT NOT NULL, ACTIVE VARCHAR(1) DEFAULT 'Y' NOT NULL,
  LAST_ACTIVITY_DATE {datetime}
){options};
CREATE UNIQUE INDEX ux_vestnik_user ON vestnik_user (TENANT_ID, USER_ID);
CREATE INDEX ix_vestnik_user_activity ON vestnik_user (TENANT_ID, LAST_ACTIVITY_DATE);

-- Options of single users: push_status and its kin.
CREATE TABLE IF NOT EXISTS vestnik_user_option (
  ID {id}, TENANT_ID INT NOT NULL, USER_ID BIGINT NOT NULL, NAME VARCHAR(100) NOT NULL, VALUE {text} NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_user_option ON vestnik_user_option (TENANT_ID, USER_ID, NAME);

CREATE TABLE IF NOT EXISTS vestnik_notification (
  ID {id}, TENANT_ID INT NOT NULL, TAG VARCHAR(100) NOT NULL, MESSAGE {text} NOT NULL, DATE_CREATE {datetime} NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_notification ON vestnik_notification (TENANT_ID, TAG);

-- Secrets of back ends and short-lived tokens of end users; only hashes are kept.
CREATE TABLE IF NOT EXISTS vestnik_token (
  ID {id}, TENANT_ID INT NOT NULL, TOKEN_HASH VARCHAR(64) NOT NULL, KIND VARCHAR(20) NOT NULL,
  USER_ID BIGINT NOT NULL, NAME VARCHAR(255) NOT NULL, DATE_CREATE {datetime} NOT NULL, DATE_EXPIRE {datetime}
){options};
CREATE UNIQUE INDEX ux_vestnik_token ON vestnik_token (TOKEN_HASH);
CREATE INDEX ix_vestnik_token_expire ON vestnik_token (DATE_EXPIRE);

CREATE TABLE IF NOT EXISTS vestnik_job (
  ID {id}, TENANT_ID INT NOT NULL, NAME VARCHAR(100) NOT NULL, PERIOD_S BIGINT NOT NULL, NEXT_EXEC {datetime} NOT NULL
){options};
CREATE UNIQUE INDEX ux_vestnik_job ON vestnik_job (TENANT_ID, NAME);
