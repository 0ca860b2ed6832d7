package demo_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/cmd/refserver/demo"
	"github.com/bedplate/bedplate/sqlite"
)

// The facts add up: a slip in a catalogue shows in its sums.
func TestFacts(t *testing.T) {
	t.Parallel()
	b, err := bedplate.Open(t.Context(), bedplate.Config{
		Path: filepath.Join(t.TempDir(), "main.db"), Migrations: demo.Migrations(), Records: demo.APIs(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.DB.View(t.Context(), func(tx *sqlite.Tx) error {
		for _, tt := range []struct {
			query string
			want  int
		}{
			{`SELECT count(*) FROM constellations`, 88},
			{`SELECT count(*) FROM messier`, 110},
			{`SELECT count(*) FROM sky`, 110},
			{`SELECT count(*) FROM stars`, 149},
			{`SELECT count(*) FROM messier WHERE kind = 'globular cluster'`, 29},
			{`SELECT count(*) FROM messier WHERE kind = 'galaxy'`, 40},
			{`SELECT count(*) FROM messier WHERE kind = 'planetary nebula'`, 4},
			{`SELECT count(*) FROM stars WHERE magnitude < 1.5`, 21}, // the stars of first magnitude
			{`SELECT count(*) FROM stars s JOIN constellations c ON c.id = s.constellation WHERE s.designation NOT LIKE '% ' || c.abbreviation`, 0},
			{`SELECT count(*) FROM observations`, 10},
		} {
			var got int
			if err := tx.QueryRowContext(t.Context(), tt.query).Scan(&got); err != nil {
				return err
			}
			if got != tt.want {
				t.Errorf("%s: %d, want %d", tt.query, got, tt.want)
			}
		}
		var sky float64
		err := tx.QueryRowContext(t.Context(), `SELECT sum(area) FROM constellations`).Scan(&sky)
		if whole := 4 * math.Pi * math.Pow(180/math.Pi, 2); math.Abs(sky-whole) > 0.05 {
			t.Errorf("the constellations cover %.3f square degrees, the sphere has %.3f", sky, whole)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRecognize(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		tables []string
		demo   bool // with the migrations of the demo
		want   bool
	}{
		"empty":          {nil, false, true},
		"demo":           {nil, true, true},
		"demo and more":  {[]string{"mine"}, true, true},
		"interrupted":    {[]string{"constellations", "messier"}, false, true},
		"somebody's":     {[]string{"mine"}, false, false},
		"a similar name": {[]string{"stars", "planets"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "100% odd? #1.db")
			db, err := sqlite.Open(t.Context(), path, sqlite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if tt.demo {
				if err := db.Migrate(t.Context(), demo.Migrations()); err != nil {
					t.Fatal(err)
				}
			}
			err = db.Update(t.Context(), func(tx *sqlite.Tx) error {
				for _, name := range tt.tables {
					if _, err := tx.ExecContext(t.Context(), `CREATE TABLE `+name+` (id INTEGER PRIMARY KEY)`); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			// While the server runs as well as after it has stopped.
			for _, state := range []string{"open", "closed"} {
				got, err := demo.Recognize(t.Context(), path)
				if err != nil || got != tt.want {
					t.Errorf("%s: %v, %v, want %v", state, got, err, tt.want)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
