-- A ledger as the first schema's launcher wrote it, two runs in it.
BEGIN TRANSACTION;
CREATE TABLE approvals (
	run VARCHAR(16) NOT NULL,
	at VARCHAR(32) NOT NULL,
	who TEXT NOT NULL,
	how VARCHAR(20) NOT NULL,
	ceiling_usd VARCHAR(24) NOT NULL,
	allowed JSON NOT NULL,
	digest VARCHAR(64) NOT NULL,
	PRIMARY KEY (run),
	FOREIGN KEY(run) REFERENCES runs (run)
);
INSERT INTO "approvals" VALUES('2265b1','2026-11-20T11:00:03.000Z','dana@laptop','free','1.500000','{"providers": ["local"]}','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd');
INSERT INTO "approvals" VALUES('d8f16a','2026-11-20T11:00:32.000Z','dana@laptop','free','1.500000','{"providers": ["local"]}','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd');
CREATE TABLE charges (
	lease VARCHAR(32) NOT NULL,
	run VARCHAR(16) NOT NULL,
	at VARCHAR(32) NOT NULL,
	amount_usd VARCHAR(24) NOT NULL,
	source VARCHAR(40) NOT NULL,
	PRIMARY KEY (lease),
	FOREIGN KEY(lease) REFERENCES leases (lease),
	FOREIGN KEY(run) REFERENCES runs (run)
);
INSERT INTO "charges" VALUES('2265b1-91b7584a','2265b1','2026-11-20T11:00:23.000Z','0.412300','rate x time');
CREATE TABLE events (
	seq INTEGER NOT NULL,
	at VARCHAR(32) NOT NULL,
	run VARCHAR(16),
	lease VARCHAR(32),
	kind VARCHAR(60) NOT NULL,
	facts JSON NOT NULL,
	PRIMARY KEY (seq)
);
INSERT INTO "events" VALUES(1,'2026-11-20T11:00:02.000Z','2265b1',NULL,'run.planned','{"digest": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}');
INSERT INTO "events" VALUES(2,'2026-11-20T11:00:04.000Z','2265b1',NULL,'approval','{"how": "free", "ceiling_usd": "1.500000"}');
INSERT INTO "events" VALUES(3,'2026-11-20T11:00:06.000Z','2265b1',NULL,'run.approved','{}');
INSERT INTO "events" VALUES(4,'2026-11-20T11:00:08.000Z','2265b1',NULL,'reserved','{"budget": "interactive", "amount_usd": "1.500000"}');
INSERT INTO "events" VALUES(5,'2026-11-20T11:00:10.000Z','2265b1',NULL,'run.reserved','{}');
INSERT INTO "events" VALUES(6,'2026-11-20T11:00:12.000Z','2265b1',NULL,'run.running','{}');
INSERT INTO "events" VALUES(7,'2026-11-20T11:00:14.000Z','2265b1','2265b1-91b7584a','lease.intended','{"label": "pl-dana-laptop-2265b1-91b7584a-20261120T230000"}');
INSERT INTO "events" VALUES(8,'2026-11-20T11:00:16.000Z','2265b1','2265b1-91b7584a','lease.created','{"machine": {"ref": "m1"}}');
INSERT INTO "events" VALUES(9,'2026-11-20T11:00:18.000Z','2265b1',NULL,'step.done','{"step": "before"}');
INSERT INTO "events" VALUES(10,'2026-11-20T11:00:20.000Z','2265b1','2265b1-91b7584a','lease.releasing','{}');
INSERT INTO "events" VALUES(11,'2026-11-20T11:00:22.000Z','2265b1','2265b1-91b7584a','lease.released','{"proof": ["a absent", "b absent"]}');
INSERT INTO "events" VALUES(12,'2026-11-20T11:00:24.000Z','2265b1',NULL,'charged','{"amount_usd": "0.412300", "source": "rate x time"}');
INSERT INTO "events" VALUES(13,'2026-11-20T11:00:26.000Z','2265b1',NULL,'run.collected','{}');
INSERT INTO "events" VALUES(14,'2026-11-20T11:00:28.000Z','2265b1',NULL,'run.settled','{"exit_code": 0}');
INSERT INTO "events" VALUES(15,'2026-11-20T11:00:31.000Z','d8f16a',NULL,'run.planned','{"digest": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}');
INSERT INTO "events" VALUES(16,'2026-11-20T11:00:33.000Z','d8f16a',NULL,'approval','{"how": "free", "ceiling_usd": "1.500000"}');
INSERT INTO "events" VALUES(17,'2026-11-20T11:00:35.000Z','d8f16a',NULL,'run.approved','{}');
INSERT INTO "events" VALUES(18,'2026-11-20T11:00:37.000Z','d8f16a',NULL,'reserved','{"budget": "interactive", "amount_usd": "1.500000"}');
INSERT INTO "events" VALUES(19,'2026-11-20T11:00:39.000Z','d8f16a',NULL,'run.reserved','{}');
INSERT INTO "events" VALUES(20,'2026-11-20T11:00:41.000Z','d8f16a',NULL,'run.running','{}');
INSERT INTO "events" VALUES(21,'2026-11-20T11:00:43.000Z','d8f16a','d8f16a-cd613e30','lease.intended','{"label": "pl-dana-laptop-d8f16a-cd613e30-20261120T230000"}');
INSERT INTO "events" VALUES(22,'2026-11-20T11:00:45.000Z','d8f16a','d8f16a-cd613e30','lease.created','{"machine": {"ref": "m1"}}');
INSERT INTO "events" VALUES(23,'2026-11-20T11:00:47.000Z','d8f16a',NULL,'step.done','{"step": "before"}');
CREATE TABLE leases (
	lease VARCHAR(32) NOT NULL,
	run VARCHAR(16) NOT NULL,
	state VARCHAR(20) NOT NULL,
	provider VARCHAR(40) NOT NULL,
	account TEXT NOT NULL,
	offer_id TEXT NOT NULL,
	label VARCHAR(120) NOT NULL,
	max_usd_per_hour VARCHAR(24) NOT NULL,
	reserved_usd VARCHAR(24) NOT NULL,
	deadline VARCHAR(32) NOT NULL,
	machine JSON,
	created_at VARCHAR(32) NOT NULL,
	updated_at VARCHAR(32) NOT NULL,
	proof JSON,
	PRIMARY KEY (lease),
	FOREIGN KEY(run) REFERENCES runs (run),
	UNIQUE (label)
);
INSERT INTO "leases" VALUES('2265b1-91b7584a','2265b1','released','local','here','cpu','pl-dana-laptop-2265b1-91b7584a-20261120T230000','0.400000','1.500000','2026-11-20T23:00:00.000Z','{"ref": "m1"}','2026-11-20T11:00:13.000Z','2026-11-20T11:00:21.000Z','["a absent", "b absent"]');
INSERT INTO "leases" VALUES('d8f16a-cd613e30','d8f16a','created','local','here','cpu','pl-dana-laptop-d8f16a-cd613e30-20261120T230000','0.400000','1.500000','2026-11-20T23:00:00.000Z','{"ref": "m1"}','2026-11-20T11:00:42.000Z','2026-11-20T11:00:44.000Z',NULL);
CREATE TABLE meta (
	"key" VARCHAR(40) NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema','1');
CREATE TABLE reservations (
	run VARCHAR(16) NOT NULL,
	budget TEXT NOT NULL,
	at VARCHAR(32) NOT NULL,
	amount_usd VARCHAR(24) NOT NULL,
	settled_at VARCHAR(32),
	PRIMARY KEY (run),
	FOREIGN KEY(run) REFERENCES runs (run)
);
INSERT INTO "reservations" VALUES('2265b1','interactive','2026-11-20T11:00:07.000Z','1.500000','2026-11-20T11:00:29.000Z');
INSERT INTO "reservations" VALUES('d8f16a','interactive','2026-11-20T11:00:36.000Z','1.500000',NULL);
CREATE TABLE runs (
	run VARCHAR(16) NOT NULL,
	run_key VARCHAR(64) NOT NULL,
	state VARCHAR(20) NOT NULL,
	reason TEXT,
	exit_code INTEGER,
	created_at VARCHAR(32) NOT NULL,
	updated_at VARCHAR(32) NOT NULL,
	owner TEXT NOT NULL,
	"plan" JSON NOT NULL,
	digest VARCHAR(64) NOT NULL,
	outcome JSON,
	PRIMARY KEY (run)
);
INSERT INTO "runs" VALUES('2265b1','key0','settled',NULL,0,'2026-11-20T11:00:01.000Z','2026-11-20T11:00:27.000Z','dana@laptop','{"recipe": "finetune", "budget": "interactive", "ceiling_usd": "1.50", "deadline_h": 12.0, "note": "d''\u00e9t\u00e9, na\u00efve"}','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','{"released": true}');
INSERT INTO "runs" VALUES('d8f16a','key1','running',NULL,NULL,'2026-11-20T11:00:30.000Z','2026-11-20T11:00:40.000Z','dana@laptop','{"recipe": "finetune", "budget": "interactive", "ceiling_usd": "1.50", "deadline_h": 12.0, "note": "d''\u00e9t\u00e9, na\u00efve"}','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd',NULL);
CREATE TABLE steps (
	run VARCHAR(16) NOT NULL,
	step VARCHAR(40) NOT NULL,
	state VARCHAR(20) NOT NULL,
	result JSON,
	updated_at VARCHAR(32) NOT NULL,
	PRIMARY KEY (run, step),
	FOREIGN KEY(run) REFERENCES runs (run)
);
INSERT INTO "steps" VALUES('2265b1','before','done','{"cached": true}','2026-11-20T11:00:17.000Z');
INSERT INTO "steps" VALUES('d8f16a','before','done','{"cached": true}','2026-11-20T11:00:46.000Z');
CREATE UNIQUE INDEX one_live_run_per_key ON runs (run_key) WHERE state IN ('planned','approved','reserved','running','collected');
CREATE INDEX ix_events_run ON events (run);
CREATE INDEX ix_leases_run ON leases (run);
CREATE INDEX ix_charges_run ON charges (run);
COMMIT;
