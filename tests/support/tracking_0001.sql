-- The database of a Tracking service of the first release, with one run, as `sqlite3 service.db .dump` tells it.
BEGIN TRANSACTION;
CREATE TABLE alembic_version_tracking (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_tracking_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version_tracking" VALUES('0001');
CREATE TABLE attempts (
    resource VARCHAR(512) NOT NULL,
    attempt INTEGER NOT NULL,
    fence BIGINT NOT NULL,
    cluster VARCHAR(63) NOT NULL,
    state VARCHAR(16) NOT NULL,
    directive VARCHAR(16) NOT NULL,
    directive_time DATETIME NOT NULL,
    command BLOB NOT NULL,
    lease_expire_time DATETIME NOT NULL,
    create_time DATETIME NOT NULL,
    start_time DATETIME,
    end_time DATETIME,
    outcome VARCHAR(16),
    error JSON,
    PRIMARY KEY (resource, attempt)
);
CREATE TABLE clusters (
    id VARCHAR(63) NOT NULL,
    capacity JSON NOT NULL,
    last_seen_time DATETIME NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE deleted_runs (
    name VARCHAR(256) NOT NULL,
    delete_time DATETIME NOT NULL,
    PRIMARY KEY (name)
);
INSERT INTO "deleted_runs" VALUES('projects/p/runs/gone','2025-01-02 04:00:00.000000');
CREATE TABLE inbox (
    consumer VARCHAR(128) NOT NULL,
    event_id VARCHAR(128) NOT NULL,
    create_time DATETIME NOT NULL,
    PRIMARY KEY (consumer, event_id)
);
CREATE TABLE outbox (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id VARCHAR(128) NOT NULL,
    resource VARCHAR(512) NOT NULL,
    subject VARCHAR(512) NOT NULL,
    headers JSON NOT NULL,
    payload BLOB NOT NULL,
    create_time DATETIME NOT NULL,
    publish_time DATETIME,
    UNIQUE (id)
);
CREATE TABLE outbox_lease (
    id INTEGER NOT NULL,
    owner VARCHAR(64) NOT NULL,
    expire_time DATETIME NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE requests (
    project VARCHAR(63) NOT NULL,
    method VARCHAR(128) NOT NULL,
    request_id VARCHAR(128) NOT NULL,
    fingerprint VARCHAR(64) NOT NULL,
    resource VARCHAR(512) NOT NULL,
    create_time DATETIME NOT NULL,
    PRIMARY KEY (project, method, request_id)
);
CREATE TABLE runs (
    name VARCHAR(256) NOT NULL,
    project VARCHAR(63) NOT NULL,
    display_name VARCHAR NOT NULL,
    labels JSON NOT NULL,
    training_job VARCHAR(256) NOT NULL,
    spec BLOB NOT NULL,
    params JSON NOT NULL,
    state VARCHAR(16) NOT NULL,
    attempt INTEGER NOT NULL,
    fence BIGINT NOT NULL,
    summarized JSON NOT NULL,
    create_time DATETIME NOT NULL,
    end_time DATETIME,
    update_time DATETIME NOT NULL,
    PRIMARY KEY (name)
);
INSERT INTO "runs" VALUES('projects/p/runs/old','p','An old run','{"team": "vision"}','',X'','{"lr": "0.1"}','FINISHED',2,7,'{"1": 3, "2": 1}','2025-01-02 03:04:05.000006','2025-01-02 04:00:00.000000','2025-01-02 04:00:00.000000');
CREATE TABLE summaries (
    run VARCHAR(256) NOT NULL,
    "key" VARCHAR(256) NOT NULL,
    last_value FLOAT,
    last_step BIGINT NOT NULL,
    best_value FLOAT,
    best_step BIGINT NOT NULL,
    point_count BIGINT NOT NULL,
    PRIMARY KEY (run, "key"),
    FOREIGN KEY(run) REFERENCES runs (name) ON DELETE CASCADE
);
INSERT INTO "summaries" VALUES('projects/p/runs/old','train/loss',24.5,49,0.0,0,50);
CREATE INDEX ix_outbox_unpublished ON outbox (sequence) WHERE publish_time IS NULL;
CREATE INDEX ix_outbox_publish_time ON outbox (publish_time);
CREATE INDEX ix_inbox_create_time ON inbox (create_time);
CREATE INDEX ix_requests_create_time ON requests (create_time);
CREATE INDEX ix_attempts_cluster ON attempts (cluster);
CREATE UNIQUE INDEX uq_attempts_live ON attempts (resource) WHERE state != 'ENDED';
CREATE INDEX ix_attempts_due ON attempts (lease_expire_time) WHERE state != 'ENDED';
CREATE INDEX ix_runs_project_create_time ON runs (project, create_time);
COMMIT;
