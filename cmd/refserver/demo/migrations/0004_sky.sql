-- One row for each Messier object: what it is, where it stands, and the brightest star to start from.
--
-- A view is read-only as an API. It carries the key of the table it is about under its own name, id, and nothing but
-- plain column references, so that every column keeps its declared type. The LEFT JOIN keeps the objects of
-- constellations without a listed star.
CREATE VIEW sky AS
SELECT
    m.id,
    m.designation,
    m.name,
    m.kind,
    m.magnitude,
    m.ra,
    m.dec,
    c.name        AS constellation,
    c.meaning     AS meaning,
    s.name        AS guide_star,
    s.designation AS guide_star_designation,
    s.magnitude   AS guide_star_magnitude
FROM messier m
JOIN constellations c ON c.id = m.constellation
LEFT JOIN stars s ON s.id = (
    SELECT b.id FROM stars b WHERE b.constellation = m.constellation ORDER BY b.magnitude LIMIT 1
);
