CREATE TABLE public.answers (
    log smallint NOT NULL,
    answer_key bytea NOT NULL,
    parameters bytea NOT NULL,
    sealed bytea NOT NULL,
    expires_at bigint NOT NULL,
    session_id bytea,
    generation bigint NOT NULL
);
CREATE TABLE public.callers (
    log smallint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    grants text NOT NULL COLLATE pg_catalog."C",
    credentials text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    revision bigint NOT NULL
);
CREATE TABLE public.commit_marks (
    log smallint NOT NULL,
    replica bytea NOT NULL,
    mark bytea NOT NULL
);
CREATE TABLE public.events (
    log smallint NOT NULL,
    revision bigint NOT NULL,
    type text NOT NULL COLLATE pg_catalog."C",
    at bigint NOT NULL,
    application text NOT NULL COLLATE pg_catalog."C",
    subject text NOT NULL COLLATE pg_catalog."C",
    session_id bytea,
    cause_kind text NOT NULL COLLATE pg_catalog."C",
    cause_actor text NOT NULL COLLATE pg_catalog."C",
    cause_reason text NOT NULL COLLATE pg_catalog."C",
    ip_address text NOT NULL COLLATE pg_catalog."C",
    user_agent text NOT NULL COLLATE pg_catalog."C",
    certificate bytea NOT NULL,
    device_id text NOT NULL COLLATE pg_catalog."C",
    generation bigint NOT NULL,
    auth_level bigint,
    auth_methods text COLLATE pg_catalog."C",
    auth_at bigint,
    detail text COLLATE pg_catalog."C"
);
CREATE TABLE public.incarnations (
    log smallint NOT NULL,
    number bigint NOT NULL,
    incarnation bytea NOT NULL,
    first_revision bigint NOT NULL
);
CREATE TABLE public.keys (
    log smallint NOT NULL,
    number bigint NOT NULL,
    fingerprint bytea NOT NULL,
    state text DEFAULT 'opening'::text NOT NULL COLLATE pg_catalog."C",
    since bigint,
    sealed_until bigint,
    log_out bigint DEFAULT 0 NOT NULL,
    wrapped bytea DEFAULT '\x'::bytea NOT NULL,
    moved bigint DEFAULT 0 NOT NULL
);
CREATE TABLE public.log_head (
    log smallint NOT NULL,
    authority_id bytea NOT NULL,
    revision bigint NOT NULL,
    horizon bigint NOT NULL,
    incarnation bigint NOT NULL,
    lineage text NOT NULL COLLATE pg_catalog."C",
    incarnation_began timestamp with time zone NOT NULL,
    replaced boolean NOT NULL
);
CREATE TABLE public.replicas (
    log smallint NOT NULL,
    replica bytea NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    lease_until timestamp with time zone NOT NULL,
    acknowledged bigint NOT NULL,
    fingerprints bytea[] NOT NULL,
    policies text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.session_data (
    log smallint NOT NULL,
    session_id bytea NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    value bytea NOT NULL,
    sealed bigint NOT NULL
);
CREATE TABLE public.session_labels (
    log smallint NOT NULL,
    session_id bytea NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    value text NOT NULL COLLATE pg_catalog."C",
    application text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.sessiond_schema (
    log smallint NOT NULL,
    version bigint NOT NULL
);
CREATE TABLE public.sessions (
    log smallint NOT NULL,
    session_id bytea NOT NULL,
    application text NOT NULL COLLATE pg_catalog."C",
    subject text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    last_active bigint NOT NULL,
    idle_deadline bigint,
    absolute_deadline bigint,
    due_at bigint,
    generation bigint NOT NULL,
    generation_began bigint NOT NULL,
    digest bytea NOT NULL,
    rolled_digest bytea,
    rolled_at bigint,
    auth_level bigint,
    auth_methods text COLLATE pg_catalog."C",
    auth_at bigint,
    ip_address text NOT NULL COLLATE pg_catalog."C",
    ip_key text NOT NULL COLLATE pg_catalog."C",
    user_agent text NOT NULL COLLATE pg_catalog."C",
    certificate bytea NOT NULL,
    device_id text NOT NULL COLLATE pg_catalog."C",
    data_version bigint NOT NULL,
    data_bytes bigint NOT NULL,
    ended_at bigint,
    end_kind text COLLATE pg_catalog."C",
    end_actor text COLLATE pg_catalog."C",
    end_reason text COLLATE pg_catalog."C",
    purge_at bigint,
    persistent bigint NOT NULL,
    login_page bigint NOT NULL,
    elevation text COLLATE pg_catalog."C",
    must_authenticate bigint NOT NULL,
    old_token bigint,
    last_ip text NOT NULL COLLATE pg_catalog."C",
    last_agent text NOT NULL COLLATE pg_catalog."C",
    own_idle bigint,
    own_absolute bigint,
    labels text COLLATE pg_catalog."C",
    revision bigint NOT NULL,
    earlier_csrf bytea,
    earlier_csrf_at bigint
);
INSERT INTO public.answers VALUES (0, '\x6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b', '\x7070707070707070707070707070707070707070707070707070707070707070', '\x7365616c6564', 1800000000900, '\x01a3185c500170008000000000000001', 4);
INSERT INTO public.callers VALUES (0, 'ops', '[["*", "admin"]]', '[["bbbbbbbbbb", "key", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 1800000000001, null]]', 1800000000000, 1);
INSERT INTO public.callers VALUES (0, 'shop', '[["*", "validator"], ["shop \u00fc", "issuer"]]', '[["aaaaaaaaaa", "key", "0000000000000000000000000000000000000000000000000000000000000000", 1800000000000, 1800000000900], ["bbbbbbbbbb", "key", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 1800000000001, null]]', 1800000000000, 2);
INSERT INTO public.commit_marks VALUES (0, '\x000102030405060708090a0b0c0d0e0f', '\x000102030405060708090a0b0c0d0e0f');
INSERT INTO public.events VALUES (0, 3, 'session_created', 1800000000000, 'default', 'ada', '\x01a3185c500370008000000000000003', 'request', 'caller', 'logout', '', '', '\x', '', 0, NULL, NULL, NULL, NULL);
INSERT INTO public.events VALUES (0, 4, 'session_created', 1800000000000, 'default', 'ada', '\x01a3185c500470008000000000000004', 'request', 'caller', 'logout', '', '', '\x', '', 0, NULL, NULL, NULL, NULL);
INSERT INTO public.events VALUES (0, 5, 'session_created', 1800000000000, 'default', 'ada', '\x01a3185c500570008000000000000005', 'request', 'caller', 'logout', '', '', '\x', '', 0, NULL, NULL, NULL, NULL);
INSERT INTO public.events VALUES (0, 6, 'session_created', 1800000000000, 'default', 'ada', '\x01a3185c500670008000000000000006', 'request', 'caller', 'logout', '', '', '\x', '', 0, NULL, NULL, NULL, NULL);
INSERT INTO public.events VALUES (0, 7, 'session_created', 1800000000000, 'default', 'ada', '\x01a3185c500770008000000000000007', 'request', 'caller', 'logout', '', '', '\x', '', 0, NULL, NULL, NULL, NULL);
INSERT INTO public.events VALUES (0, 8, 'session_created', 1800000000000, 'default', 'ada', '\x01a3185c500870008000000000000008', 'request', 'caller', 'logout', '', '', '\x', '', 0, NULL, NULL, NULL, NULL);
INSERT INTO public.events VALUES (0, 9, 'session_revoked', 1800000000080, 'default', 'ada', '\x01a3185c500370008000000000000003', 'request', 'caller', 'logout', '', '', '\x', '', 0, NULL, NULL, NULL, NULL);
INSERT INTO public.events VALUES (0, 10, 'session_expired', 1800000000080, 'default', 'ada', '\x01a3185c500470008000000000000004', 'request', 'caller', 'logout', '', '', '\x', '', 0, NULL, NULL, NULL, NULL);
INSERT INTO public.incarnations VALUES (0, 1, '\x0001020304050607', 1);
INSERT INTO public.log_head VALUES (0, '\x000102030405060708090a0b0c0d0e0f', 10, 2, 1, '7712778272963562825/00000001/1795771131.223677/16384/16392', '2026-11-27 09:18:51.41382+00', false);
INSERT INTO public.replicas VALUES (0, '\x000102030405060708090a0b0c0d0e0f', 'one', '2026-01-01 00:00:00+00', 10, '{}', 'the fingerprint of policies');
INSERT INTO public.session_data VALUES (0, '\x01a3185c500270008000000000000002', 'cart', '\x33206170706c6573', 0);
INSERT INTO public.session_data VALUES (0, '\x01a3185c500270008000000000000002', 'ü', '\x00ff', 0);
INSERT INTO public.session_labels VALUES (0, '\x01a3185c500870008000000000000008', 'device', 'phone', 'default');
INSERT INTO public.session_labels VALUES (0, '\x01a3185c500870008000000000000008', 'tenant', 'acme', 'default');
INSERT INTO public.sessiond_schema VALUES (0, 4);
INSERT INTO public.sessions VALUES (0, '\x01a3185c500170008000000000000001', 'default', 'ada', 1800000000001, 1800000000001, 1800000001000, NULL, 1800000001000, 0, 1800000000001, '\x0101010101010101010101010101010101010101010101010101010101010101', NULL, NULL, NULL, NULL, NULL, '', '', '', '\x', '', 0, 0, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, NULL, '', '', NULL, NULL, NULL, 1, NULL, NULL);
INSERT INTO public.sessions VALUES (0, '\x01a3185c500270008000000000000002', 'default', 'bob ü ''quoted''', 1800000000002, 1800000000050, 1800000002000, 1800000003000, 1800000002000, 7, 1800000000040, '\x0202020202020202020202020202020202020202020202020202020202020202', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1800000000039, 2, 'pwd otp', 1800000000038, '2001:db8::1', '20010db8000000000000000000000001', 'Firefox', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'a device', 3, 17, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, NULL, '2001:db8::1', 'Firefox', NULL, NULL, NULL, 2, NULL, NULL);
INSERT INTO public.sessions VALUES (0, '\x01a3185c500370008000000000000003', 'default', 'ada', 1800000000003, 1800000000003, NULL, NULL, NULL, 0, 1800000000003, '\x0303030303030303030303030303030303030303030303030303030303030303', NULL, NULL, NULL, NULL, NULL, '', '', '', '\x', '', 0, 0, 1800000000060, 'request', 'caller', 'logout', 1800086400060, 0, 0, NULL, 0, NULL, '', '', NULL, NULL, NULL, 3, NULL, NULL);
INSERT INTO public.sessions VALUES (0, '\x01a3185c500470008000000000000004', 'shop', '', 1800000000004, 1800000000004, 1800000000070, NULL, 1800000000070, 0, 1800000000004, '\x0404040404040404040404040404040404040404040404040404040404040404', NULL, NULL, NULL, NULL, NULL, '', '', '', '\x', '', 0, 0, 1800000000070, 'idle_timeout', 'authority', '', 1800086400070, 0, 0, NULL, 0, NULL, '', '', NULL, NULL, NULL, 4, NULL, NULL);
INSERT INTO public.sessions VALUES (0, '\x01a3185c500570008000000000000005', 'default', 'ada', 1800000000005, 1800000000005, NULL, NULL, NULL, 0, 1800000000005, '\x0505050505050505050505050505050505050505050505050505050505050505', NULL, NULL, NULL, NULL, NULL, '', '', '', '\x', '', 0, 0, NULL, NULL, NULL, NULL, NULL, 1, 0, '[3, ["hwk"], 1800000000005, 1800000000500]', 0, NULL, '', '', NULL, NULL, NULL, 5, NULL, NULL);
INSERT INTO public.sessions VALUES (0, '\x01a3185c500670008000000000000006', 'default', '', 1800000000006, 1800000000006, NULL, NULL, NULL, 0, 1800000000006, '\x0606060606060606060606060606060606060606060606060606060606060606', NULL, NULL, NULL, NULL, NULL, '', '', '', '\x', '', 0, 0, NULL, NULL, NULL, NULL, NULL, 0, 1, NULL, 0, NULL, '', '', NULL, NULL, NULL, 6, NULL, NULL);
INSERT INTO public.sessions VALUES (0, '\x01a3185c500770008000000000000007', 'default', 'ada', 1800000000007, 1800000000007, NULL, NULL, NULL, 0, 1800000000007, '\x0707070707070707070707070707070707070707070707070707070707070707', NULL, NULL, NULL, NULL, NULL, '', '', '', '\x', '', 0, 0, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 1, NULL, '', '', NULL, NULL, NULL, 7, NULL, NULL);
INSERT INTO public.sessions VALUES (0, '\x01a3185c500870008000000000000008', 'default', 'carol', 1800000000008, 1800000000008, NULL, NULL, NULL, 0, 1800000000008, '\x0808080808080808080808080808080808080808080808080808080808080808', NULL, NULL, NULL, NULL, NULL, '203.0.113.9', '00000000000000000000ffffcb007109', 'Firefox', '\x', '', 0, 0, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 3, '203.0.113.10', 'Chrome', 60000, NULL, '{"device": "phone", "tenant": "acme"}', 8, NULL, NULL);
ALTER TABLE ONLY public.answers
    ADD CONSTRAINT answers_pkey PRIMARY KEY (log, answer_key);
ALTER TABLE ONLY public.callers
    ADD CONSTRAINT callers_pkey PRIMARY KEY (log, name);
ALTER TABLE ONLY public.commit_marks
    ADD CONSTRAINT commit_marks_pkey PRIMARY KEY (log, replica);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (log, revision);
ALTER TABLE ONLY public.incarnations
    ADD CONSTRAINT incarnations_pkey PRIMARY KEY (log, number);
ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (log, number);
ALTER TABLE ONLY public.log_head
    ADD CONSTRAINT log_head_pkey PRIMARY KEY (log);
ALTER TABLE ONLY public.replicas
    ADD CONSTRAINT replicas_pkey PRIMARY KEY (log, replica);
ALTER TABLE ONLY public.session_data
    ADD CONSTRAINT session_data_pkey PRIMARY KEY (log, session_id, key);
ALTER TABLE ONLY public.session_labels
    ADD CONSTRAINT session_labels_pkey PRIMARY KEY (log, session_id, key);
ALTER TABLE ONLY public.sessiond_schema
    ADD CONSTRAINT sessiond_schema_pkey PRIMARY KEY (log);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (log, session_id);
CREATE INDEX answers_expired ON public.answers USING btree (log, expires_at);
CREATE INDEX events_by_subject ON public.events USING btree (log, application, subject, revision) WHERE (subject <> ''::text);
CREATE INDEX session_labels_by_value ON public.session_labels USING btree (log, application, key, value, session_id);
CREATE INDEX sessions_due ON public.sessions USING btree (log, due_at) WHERE (ended_at IS NULL);
CREATE INDEX sessions_ended_by_subject ON public.sessions USING btree (log, application, subject, session_id) WHERE (ended_at IS NOT NULL);
CREATE INDEX sessions_live ON public.sessions USING btree (log, application, session_id) WHERE (ended_at IS NULL);
CREATE INDEX sessions_live_by_subject ON public.sessions USING btree (log, application, subject, session_id) WHERE (ended_at IS NULL);
CREATE INDEX sessions_prunable ON public.sessions USING btree (log, purge_at) WHERE (ended_at IS NOT NULL);
