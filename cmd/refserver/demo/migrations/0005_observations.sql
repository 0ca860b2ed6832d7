-- What people saw. Everybody may add to this table, so the schema says what a sensible row is: an access rule decides
-- who may write, a CHECK decides what may be written, whoever writes it and by whatever road.
--
-- The key is a UUID of version 7, made by the server: nobody can guess the next one, and since it begins with the time,
-- new rows land at the end of the index. Sixteen bytes in the database, URL-safe base64 in JSON.
CREATE TABLE observations (
    id          BLOB PRIMARY KEY NOT NULL CHECK (is_uuid_v7(id)) DEFAULT (uuid_v7()),
    object      INTEGER NOT NULL REFERENCES messier(id),
    observer    TEXT NOT NULL CHECK (length(trim(observer)) BETWEEN 1 AND 60),
    -- GLOB looks at the form, date() at the calendar: it turns February 30 into March 1 or 2, which is not what was given.
    seen_on     TEXT NOT NULL CHECK (seen_on GLOB '[12][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]' AND date(seen_on) IS seen_on),
    aperture_mm INTEGER CHECK (aperture_mm BETWEEN 5 AND 50000),             -- NULL: the naked eye, or unknown
    rating      INTEGER CHECK (rating BETWEEN 1 AND 5),
    note        TEXT NOT NULL DEFAULT '' CHECK (length(note) <= 500),
    created     INTEGER NOT NULL DEFAULT (unixepoch())                       -- seconds since 1970
) STRICT;

CREATE INDEX observations_object ON observations(object);
CREATE INDEX observations_seen_on ON observations(seen_on);

-- The first entries are Messier's own, by the dates in his catalogue.
INSERT INTO observations (object, observer, seen_on, note) VALUES
    (1,  'Charles Messier', '1758-09-12', 'Found while following the comet of 1758; taken for a comet at first.'),
    (2,  'Charles Messier', '1760-09-11', 'A nebula without a star.'),
    (3,  'Charles Messier', '1764-05-03', 'Round, brightest in the middle.'),
    (13, 'Charles Messier', '1764-06-01', 'Round and bright, without a star.'),
    (27, 'Charles Messier', '1764-07-12', 'Oval, without a star: the first planetary nebula ever found.'),
    (31, 'Charles Messier', '1764-08-03', 'The nebula in the belt of Andromeda, like two cones of light.'),
    (42, 'Charles Messier', '1769-03-04', 'Position of the nebula in the sword of Orion.'),
    (44, 'Charles Messier', '1769-03-04', 'Position of the cluster in Cancer.'),
    (45, 'Charles Messier', '1769-03-04', 'Position of the Pleiades.'),
    (51, 'Charles Messier', '1773-10-13', 'A very faint nebula, hard to see with a telescope of a foot.');
