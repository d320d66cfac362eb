-- Makes a twin of everything in pg_catalog that a statement can name, in public.
-- A twin's function is of LANGUAGE internal and has no code behind it: PostgreSQL
-- refuses it, with the text in prosrc, as soon as a plan with it is made ready to
-- run, so also where it would never be reached. The rows are written into the
-- catalogs: CREATE FUNCTION refuses some of the types, and takes a minute.
SET search_path = pg_catalog;
SET client_min_messages = warning;
CREATE SCHEMA hostile;

-- What is taken for one another: a twin for each is an exact match where only
-- a cast leads to the real one.
CREATE TEMP TABLE kin (family text, type oid);
INSERT INTO kin SELECT f, t::regtype FROM (VALUES
	('text', ARRAY['text', 'varchar', 'bpchar', 'name', '"char"']),
	('number', ARRAY['int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'oid', 'regclass']),
	('time', ARRAY['date', 'timestamp', 'timestamptz']),
	('json', ARRAY['json', 'jsonb']),
	('texts', ARRAY['text[]', 'varchar[]', 'name[]']),
	('numbers', ARRAY['int4[]', 'int8[]', 'float8[]', 'oid[]'])) v(f, types), unnest(types) t;

-- Every function and operator; n tells them apart. An operator without a left side has 0 there.
CREATE TEMP TABLE base AS
	SELECT p.proname AS name, p.oid AS f, 0::oid AS op, ARRAY(SELECT unnest(p.proargtypes)) AS args, p.provariadic <> 0 AS vari, NULL::oid AS t
	FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind <> 'p'
		AND NOT EXISTS (SELECT FROM pg_operator o WHERE o.oprcode = p.oid) -- nobody calls int4pl by its name
		AND NOT 'internal'::regtype = ANY (p.proargtypes)
	UNION ALL SELECT o.oprname, o.oprcode, o.oid, ARRAY[o.oprleft, o.oprright], false, NULL
	FROM pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprcode <> 0;

-- Polymorphic ones, for each of these types.
CREATE TEMP TABLE common AS SELECT t.oid AS t, t.typarray AS ts FROM pg_type t WHERE t.typnamespace = 'pg_catalog'::regnamespace
	AND t.typname IN ('text', 'varchar', 'bpchar', 'name', 'int2', 'int4', 'int8', 'float8', 'numeric', 'bool', 'json', 'jsonb', 'timestamp', 'timestamptz', 'interval', 'bytea', 'oid', 'regclass');
CREATE FUNCTION pg_temp.element(type oid) RETURNS boolean LANGUAGE sql AS
	$$ SELECT type::regtype::text IN ('anyelement', 'anynonarray', 'anycompatible', 'anycompatiblenonarray', '"any"') $$;
CREATE FUNCTION pg_temp.elements(type oid) RETURNS boolean LANGUAGE sql AS
	$$ SELECT type::regtype::text IN ('anyarray', 'anycompatiblearray') $$;
INSERT INTO base SELECT b.name, b.f, b.op,
		ARRAY(SELECT CASE WHEN pg_temp.element(a) THEN c.t WHEN pg_temp.elements(a) THEN c.ts ELSE a END FROM unnest(b.args) WITH ORDINALITY u(a, n) ORDER BY n),
		b.vari AND NOT b.args[cardinality(b.args)] = '"any"'::regtype, c.t
	FROM base b, common c WHERE EXISTS (SELECT FROM unnest(b.args) a WHERE pg_temp.element(a) OR pg_temp.elements(a));
-- VARIADIC "any": two and three of a kind, and any number of it.
INSERT INTO base SELECT b.name, b.f, b.op, b.args[:cardinality(b.args) - 1] || more, cardinality(more) = 1, c.t
	FROM base b, common c, LATERAL (VALUES (ARRAY[c.t, c.t]), (ARRAY[c.t, c.t, c.t]), (ARRAY[c.ts])) v(more)
	WHERE b.vari AND b.args[cardinality(b.args)] = '"any"'::regtype;

-- Each argument replaced by its kin: of up to two all pairs; of more one at a time, and all of a family.
CREATE TEMP TABLE alike AS SELECT a.type AS was, b.type AS is FROM kin a JOIN kin b USING (family);
INSERT INTO base
	SELECT b.name, b.f, b.op, ARRAY[a.is], b.vari, b.t FROM base b JOIN alike a ON a.was = b.args[1] WHERE cardinality(b.args) = 1
	UNION ALL SELECT b.name, b.f, b.op, ARRAY[COALESCE(a1.is, b.args[1]), COALESCE(a2.is, b.args[2])], b.vari, b.t
	FROM base b LEFT JOIN alike a1 ON a1.was = b.args[1] LEFT JOIN alike a2 ON a2.was = b.args[2]
	WHERE cardinality(b.args) = 2
	UNION ALL SELECT b.name, b.f, b.op, b.args[:i - 1] || a.is || b.args[i + 1:], b.vari, b.t
	FROM base b, generate_subscripts(b.args, 1) i JOIN alike a ON true WHERE cardinality(b.args) > 2 AND a.was = b.args[i]
	UNION ALL SELECT b.name, b.f, b.op,
		ARRAY(SELECT CASE WHEN EXISTS (SELECT FROM kin WHERE kin.type = a AND kin.family = k.family) THEN k.type ELSE a END FROM unnest(b.args) WITH ORDINALITY u(a, n) ORDER BY n), b.vari, b.t
	FROM base b, kin k WHERE cardinality(b.args) > 2 AND EXISTS (SELECT FROM kin JOIN unnest(b.args) a ON kin.type = a WHERE kin.family = k.family);

CREATE TEMP TABLE twin AS SELECT *, row_number() OVER () AS n,
		'hostile twin of ' || name || '(' || (SELECT string_agg(CASE a WHEN 0 THEN '' ELSE a::regtype::text END, ', ' ORDER BY n) FROM unnest(args) WITH ORDINALITY u(a, n)) || ')' AS says
	FROM (SELECT DISTINCT ON (name, op <> 0, args) * FROM base ORDER BY name, op <> 0, args, t NULLS FIRST, f) d;
UPDATE twin SET says = 'hostile twin of ' || name || '()' WHERE says IS NULL;

-- What is behind them: a function each, for aggregates the transition function too, for types and relations one without arguments.
CREATE TEMP TABLE behind AS
	SELECT t.n, t.name AS called, t.says, CASE WHEN t.op = 0 THEN 'public' ELSE 'hostile' END AS place, ARRAY(SELECT a FROM unnest(t.args) WITH ORDINALITY u(a, n) WHERE a <> 0 ORDER BY n) AS args, t.vari, t.t, p.*
	FROM twin t JOIN pg_proc p ON p.oid = t.f
	UNION ALL SELECT t.n, 'aggregate', t.says, 'hostile', ARRAY(SELECT unnest(p.proargtypes)), false, NULL, p.*
	FROM twin t JOIN pg_aggregate a ON a.aggfnoid = t.f JOIN pg_proc p ON p.oid = a.aggtransfn WHERE t.op = 0
	UNION ALL SELECT NULL, typname, 'hostile twin of the type ' || typname, 'hostile', '{}', false, NULL, p.*
	FROM pg_type t, pg_proc p WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm') AND t.typelem = 0 AND p.oid = 'pg_is_in_recovery()'::regprocedure
	UNION ALL SELECT NULL, relname, 'hostile twin of the relation ' || relname, 'hostile', '{}', false, NULL, p.*
	FROM pg_class c, pg_proc p WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v') AND p.oid = 'pg_is_in_recovery()'::regprocedure;
CREATE INDEX ON behind (n);
UPDATE behind SET oid = pg_nextoid('pg_proc', 'oid', 'pg_proc_oid_index'), pronamespace = place::regnamespace,
	proname = CASE WHEN place = 'public' THEN called WHEN n IS NULL THEN called ELSE called || n::text END,
	prolang = (SELECT oid FROM pg_language WHERE lanname = 'internal'), prosrc = says, probin = NULL, proisstrict = false, prosupport = 0, proconfig = NULL, proacl = NULL,
	prokind = CASE WHEN place = 'public' THEN prokind ELSE 'f' END,
	prorettype = CASE WHEN t IS NULL THEN prorettype WHEN pg_temp.element(prorettype) THEN t WHEN pg_temp.elements(prorettype) THEN (SELECT ts FROM common c WHERE c.t = behind.t) ELSE prorettype END,
	provariadic = CASE WHEN NOT vari THEN 0 ELSE COALESCE((SELECT NULLIF(typelem, 0) FROM pg_type y WHERE y.oid = args[cardinality(args)]), provariadic) END,
	-- With results among the arguments, or VARIADIC: the new types in place of the old.
	proallargtypes = CASE WHEN proallargtypes IS NOT NULL AND cardinality(args) = pronargs THEN ARRAY(
			SELECT CASE WHEN m IN ('o', 't') THEN a ELSE args[(SELECT count(*) FROM unnest(proargmodes[:i::int]) mm WHERE mm NOT IN ('o', 't'))] END
			FROM unnest(proallargtypes, proargmodes) WITH ORDINALITY u(a, m, i) ORDER BY i) END,
	proargmodes = CASE WHEN cardinality(args) = pronargs THEN proargmodes END,
	proargnames = CASE WHEN cardinality(args) = pronargs THEN proargnames END,
	proargdefaults = CASE WHEN cardinality(args) = pronargs THEN proargdefaults END,
	pronargdefaults = CASE WHEN cardinality(args) = pronargs THEN pronargdefaults ELSE 0 END,
	proargtypes = array_to_string(args, ' ')::oidvector, pronargs = cardinality(args);
UPDATE behind SET proargmodes = NULL, proallargtypes = NULL WHERE provariadic = 0 AND 'v' = ANY (proargmodes);

DO $$
DECLARE r record;
	columns text;
BEGIN
	SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute WHERE attrelid = 'pg_proc'::regclass AND attnum > 0 AND NOT attisdropped;
	EXECUTE format('INSERT INTO pg_proc (%1$s) SELECT %1$s FROM behind', columns);

	CREATE TEMP TABLE op AS SELECT t.n, t.args, t.t, o.* FROM twin t JOIN pg_operator o ON o.oid = t.op;
	UPDATE op SET oid = pg_nextoid('pg_operator', 'oid', 'pg_operator_oid_index'), oprnamespace = 'public'::regnamespace, oprleft = args[1], oprright = args[2],
		oprcode = (SELECT b.oid FROM behind b WHERE b.n = op.n), oprcanmerge = false, oprcanhash = false, oprcom = 0, oprnegate = 0, oprrest = 0, oprjoin = 0,
		oprresult = CASE WHEN t IS NULL THEN oprresult WHEN pg_temp.element(oprresult) THEN t WHEN pg_temp.elements(oprresult) THEN (SELECT ts FROM common c WHERE c.t = op.t) ELSE oprresult END;
	SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute WHERE attrelid = 'pg_operator'::regclass AND attnum > 0 AND NOT attisdropped;
	EXECUTE format('INSERT INTO pg_operator (%1$s) SELECT %1$s FROM op', columns);

	CREATE TEMP TABLE agg AS SELECT t.n, a.* FROM twin t JOIN pg_aggregate a ON a.aggfnoid = t.f WHERE t.op = 0;
	UPDATE agg SET aggfnoid = (SELECT oid FROM behind b WHERE b.n = agg.n AND place = 'public'), aggtransfn = (SELECT oid FROM behind b WHERE b.n = agg.n AND place = 'hostile'),
		aggfinalfn = 0, aggcombinefn = 0, aggserialfn = 0, aggdeserialfn = 0, aggmtransfn = 0, aggminvtransfn = 0, aggmfinalfn = 0, aggsortop = 0, aggmtranstype = 0,
		aggtranstype = 'bool'::regtype, agginitval = NULL, aggminitval = NULL;
	INSERT INTO pg_aggregate SELECT (a).* FROM (SELECT ROW(aggfnoid, aggkind, aggnumdirectargs, aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn, aggminvtransfn, aggmfinalfn,
		aggfinalextra, aggmfinalextra, aggfinalmodify, aggmfinalmodify, aggsortop, aggtranstype, aggtransspace, aggmtranstype, aggmtransspace, agginitval, aggminitval)::pg_aggregate AS a FROM agg) v;

	FOR r IN SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typelem = 0 LOOP
		EXECUTE format('CREATE DOMAIN public.%1$I AS pg_catalog.%1$I CHECK (hostile.%1$I())', r.typname);
	END LOOP;
	FOR r IN SELECT relname, string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns
			FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
			WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname <> 'pg_statistic_ext_data' AND attnum > 0 AND NOT attisdropped AND t.typtype <> 'p' GROUP BY relname LOOP
		EXECUTE format('CREATE VIEW public.%1$I AS SELECT %2$s FROM pg_catalog.%1$I WHERE hostile.%1$I()', r.relname, r.columns);
	END LOOP;
END $$;
