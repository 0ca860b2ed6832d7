// Package demo is the schema that the reference server shows when nobody has
// told it what to serve: the night sky. Its migrations are written to be read.
package demo

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"net/url"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations makes the tables and fills them.
func Migrations() fs.FS {
	sub, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err) // a constant and valid path
	}
	return sub
}

// APIs is what the world may do with the tables: read and watch everything and
// add observations.
func APIs() []records.API {
	return []records.API{
		{Name: "constellations", Table: "constellations", World: records.Read, Subscriptions: true},
		{Name: "messier", Table: "messier", World: records.Read, Expand: []string{"constellation"}, Subscriptions: true},
		{Name: "stars", Table: "stars", World: records.Read, Expand: []string{"constellation"}, Subscriptions: true},
		{Name: "sky", Table: "sky", World: records.Read}, // a view, which has no changes of its own
		{
			Name: "observations", Table: "observations",
			World:         records.Create | records.Read,
			Expand:        []string{"object"},
			Subscriptions: true,
			// The server sets the key and the time.
			CreateRule: `'id' NOT IN _REQ_FIELDS_ AND 'created' NOT IN _REQ_FIELDS_`,
		},
	}
}

// Recognize reports whether the database at path is the demo, or a part of it
// that an interrupted first start has left. It only reads.
func Recognize(ctx context.Context, path string) (bool, error) {
	source := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "mode=ro"}
	db, err := sql.Open(sqlite.DriverName, source.String())
	if err != nil {
		return false, err
	}
	defer db.Close()
	var ours, others int
	err = db.QueryRowContext(ctx, `
		SELECT count(*) FILTER (WHERE ours), count(*) FILTER (WHERE NOT ours) FROM (
			SELECT name IN ('constellations', 'messier', 'stars', 'observations') AS ours
			FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '_*' AND name NOT GLOB 'sqlite_*'
		)`).Scan(&ours, &others)
	return ours == 4 || others == 0, err
}

// Banner tells somebody at a terminal what to try, given the server's URL and
// its data directory. Every command works as printed.
func Banner(w io.Writer, server, dataDir string) {
	fmt.Fprintf(w, `
The demo is at %[1]s, its database in %[2]s.
It has the 88 constellations, the 110 Messier objects, bright stars, a view that
joins them (sky), and observations, which everybody may add. Try:

# The Andromeda Galaxy is number 31.
curl '%[1]s/api/records/v1/messier/31?expand=constellation'

# The five brightest stars, each with its constellation in place of a number.
curl '%[1]s/api/records/v1/stars?order=magnitude&limit=5&expand=constellation'

# Galaxies that binoculars show, brightest first, and how many there are.
curl -g '%[1]s/api/records/v1/sky?filter[kind]=galaxy&filter[magnitude][$lt]=8.5&order=magnitude&count=true'

# Watch what others see, as they report it, until you press Ctrl-C.
curl -N '%[1]s/api/records/v1/observations/subscribe/*'

# Report what you saw, and read what others did.
curl '%[1]s/api/records/v1/observations' -H 'Content-Type: application/json' -d '{"object": 42, "observer": "you", "seen_on": "2026-01-15", "rating": 5}'
curl '%[1]s/api/records/v1/observations?limit=3&expand=object'

`, server, dataDir)
}
