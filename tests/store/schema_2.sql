BEGIN TRANSACTION;
CREATE TABLE measurements (
	number INTEGER NOT NULL, 
	split VARCHAR(4) NOT NULL CHECK (split IN ('val', 'test')), 
	metric VARCHAR(64) NOT NULL, 
	position INTEGER NOT NULL, 
	mean DOUBLE NOT NULL, 
	stderr DOUBLE NOT NULL, 
	n INTEGER NOT NULL, 
	unit TEXT NOT NULL, 
	host TEXT NOT NULL, 
	PRIMARY KEY (number, split, metric), 
	FOREIGN KEY(number) REFERENCES trials (number)
);
INSERT INTO "measurements" VALUES(0,'val','quality',0,0.9,0.01,100,'accuracy','h');
INSERT INTO "measurements" VALUES(0,'val','size_bytes',1,1000.0,0.0,1,'B','h');
INSERT INTO "measurements" VALUES(1,'val','quality',0,0.8,0.01,100,'accuracy','h');
INSERT INTO "measurements" VALUES(1,'val','size_bytes',1,500.0,0.0,1,'B','h');
INSERT INTO "measurements" VALUES(0,'test','quality',0,0.88,0.02,50,'accuracy','h');
CREATE TABLE notes (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	checksum VARCHAR(64) DEFAULT '' NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "notes" VALUES('stop_reason','"the budget of 3 trials is spent"','3ad5b0f02bf6a01b8aa170a48c1b963d0c1565844fafc4197f81401ec48618d3');
CREATE TABLE study (
	id INTEGER NOT NULL CHECK (id = 1), 
	schema_version INTEGER NOT NULL, 
	petra_version VARCHAR(64) NOT NULL, 
	created VARCHAR(64) NOT NULL, 
	config TEXT NOT NULL, 
	host TEXT NOT NULL, 
	elapsed_s DOUBLE NOT NULL, 
	checksum VARCHAR(64) DEFAULT '' NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "study" VALUES(1,2,'0.1.0','2026-11-27T03:54:09+00:00','{"seed":3,"search":{"name":"evolution"}}','{"cpu":"some cpu"}',5.62188269996113376691e-02,'a688dc958bab0a48d57d36e2e262dc3092a1112dc96503a3703f32a11caf849a');
CREATE TABLE trials (
	number INTEGER NOT NULL, 
	"key" VARCHAR(64) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	pipeline TEXT NOT NULL, 
	move TEXT NOT NULL, 
	parent INTEGER, 
	failure_stage TEXT, 
	failure_kind TEXT, 
	failure_message TEXT, 
	failure_peak_memory_mb DOUBLE, 
	trace TEXT NOT NULL, 
	artifact TEXT NOT NULL, 
	parity TEXT NOT NULL, 
	seconds DOUBLE NOT NULL, 
	finished_at DOUBLE NOT NULL, 
	checksum VARCHAR(64) DEFAULT '' NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE ("key")
);
INSERT INTO "trials" VALUES(0,'4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945','complete','[]','baseline',NULL,NULL,NULL,NULL,NULL,'[]','artifacts/00000/model.onnx','{"max_abs_error":1e-05}',1.5,2.0,'4410755162ba7fa25b1eccb5f8dc5e328fe07b5b5d3d3512e5f7c44323d9a71b');
INSERT INTO "trials" VALUES(1,'34894bcc0de5bdbcd235bbd2e1560bc32a92576bd501e05235dd9eac875f0e62','infeasible','[{"stage":"tune","params":{"epochs":2,"lr":0.1}}]','initial',NULL,NULL,NULL,NULL,NULL,'[{"stage":"tune","touched":["a"],"skipped":{"b":"too thin"},"params_before":10,"params_after":8,"seconds":0.5,"peak_memory_mb":0.0,"cached":false,"details":{"epochs":2}}]','','{}',1.5,4.0,'7afcd2c2d196d51cec664c00dc559fdd5526b8d855307ea874343eaa845f62af');
INSERT INTO "trials" VALUES(3,'a0779e02e07bdaf02ac9c161d154dc042a03d256663f9c1b647ce41a7d6da5ed','failed','[{"stage":"tune","params":{"epochs":2,"lr":0.1}},{"stage":"quantize.static","params":{"samples":32}}]','perturb+add',1,'export','ExportError','cannot',12.5,'[]','','{}',0.0,6.0,'63d605f002a53819c7b8b6321a6dcca6bffc398de04903d10c0818b5e8b1a831');
COMMIT;
