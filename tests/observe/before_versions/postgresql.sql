-- What the last tierwise without versions made of an empty database.
CREATE TABLE decisions (
    id VARCHAR(64) NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    tier VARCHAR(8) NOT NULL,
    reason VARCHAR(32) NOT NULL,
    mode VARCHAR(8) NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    score DOUBLE PRECISION,
    threshold DOUBLE PRECISION NOT NULL,
    calibration VARCHAR(64) NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    all_large_usd DOUBLE PRECISION NOT NULL,
    overhead_seconds DOUBLE PRECISION NOT NULL,
    total_seconds DOUBLE PRECISION NOT NULL,
    receipt TEXT NOT NULL,
    key VARCHAR(255),
    session VARCHAR(256),
    kind VARCHAR(16),
    stream BOOLEAN,
    chosen VARCHAR(8),
    PRIMARY KEY (id)
);
CREATE INDEX ix_decisions_created ON decisions (created);
CREATE INDEX ix_decisions_session ON decisions (session);
CREATE INDEX ix_decisions_key_created ON decisions (key, created);
CREATE TABLE prompts (
    decision_id VARCHAR(64) NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    key VARCHAR(255),
    session VARCHAR(256),
    body TEXT NOT NULL,
    PRIMARY KEY (decision_id)
);
CREATE INDEX ix_prompts_key ON prompts (key);
CREATE INDEX ix_prompts_session ON prompts (session);
CREATE INDEX ix_prompts_created ON prompts (created);
CREATE TABLE mirrors (
    number BIGSERIAL NOT NULL,
    decision_id VARCHAR(64) NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    key VARCHAR(255),
    session VARCHAR(256),
    body TEXT NOT NULL,
    tier VARCHAR(8) NOT NULL,
    answer TEXT NOT NULL,
    mirror_tier VARCHAR(8) NOT NULL,
    mirror_model VARCHAR(255) NOT NULL,
    mirror_answer TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (number),
    UNIQUE (decision_id)
);
CREATE INDEX ix_mirrors_created ON mirrors (created);
CREATE INDEX ix_mirrors_session ON mirrors (session);
CREATE INDEX ix_mirrors_key ON mirrors (key);
CREATE TABLE forgotten (
    number BIGSERIAL NOT NULL,
    key VARCHAR(255),
    session VARCHAR(256),
    at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (number)
);
CREATE TABLE attempts (
    decision_id VARCHAR(64) NOT NULL,
    number INTEGER NOT NULL,
    tier VARCHAR(8) NOT NULL,
    model VARCHAR(255) NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    started DOUBLE PRECISION NOT NULL,
    first_token DOUBLE PRECISION,
    ended DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (decision_id, number),
    FOREIGN KEY(decision_id) REFERENCES decisions (id)
);
