package main

import (
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// rulesCommand is the commands about who may do what. They work on the
// database itself, so they need no server, and they change nothing in it.
type rulesCommand struct {
	Check   rulesCheck   `cmd:"" help:"Look for record APIs that give away more than they need and for slow rules. Without a database the migrations are tried out elsewhere."`
	Explain rulesExplain `cmd:"" help:"Say why a request is granted or denied. What it says is for operators only."`
}

type rulesCheck struct {
	where
	JSON bool `help:"Print a JSON array of the findings."`
}

// Run prints the findings. The error makes the exit status 1.
func (c *rulesCheck) Run(p *program) error {
	conf, err := c.apis(p)
	if err != nil {
		return err
	}
	var found []records.Finding
	err = conf.inspect(p, true, func(db *sqlite.DB) (err error) {
		found, err = records.Lint(p.ctx, db, records.Config{APIs: conf.APIs})
		return conf.locate(err)
	})
	if err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(p, append([]records.Finding{}, found...)); err != nil {
			return err
		}
	}
	serious := 0
	for _, f := range found {
		if f.Severity != records.SeverityInfo {
			serious++
		}
		if !c.JSON {
			fmt.Fprintf(p.stdout, "%s%s\n", conf.position(f), f)
		}
	}
	switch {
	case serious > 0:
		return fmt.Errorf("%d of %d findings are warnings or errors", serious, len(found))
	case len(found) == 0 && !c.JSON:
		fmt.Fprintf(p.stdout, "Nothing found in %d record APIs.\n", len(conf.APIs))
	}
	return nil
}

// position is file and line of what a finding is about, if they are known.
func (conf *config) position(f records.Finding) string {
	api := fmt.Sprintf("api %q", f.API)
	line := conf.places[api+": "+f.Place]
	if line == 0 {
		line = conf.places[api]
	}
	if line == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d: ", conf.file, line)
}

type rulesExplain struct {
	where
	API  string `arg:"" help:"Name of the record API."`
	Op   string `arg:"" enum:"create,read,update,delete,schema" help:"One of ${enum}."`
	User string `placeholder:"USER" help:"Who asks: verified e-mail address, username or id; without a sign-in any id. Without it somebody anonymous."`
	ID   string `placeholder:"ID" help:"The record, as in a path; a read without it is a list."`
	Body string `placeholder:"JSON" help:"The record of a create, or what an update changes."`
	JSON bool   `help:"Print a JSON object."`
}

// Run prints the explanation, whether it grants or denies.
func (c *rulesExplain) Run(p *program) error {
	conf, err := c.apis(p)
	if err != nil {
		return err
	}
	q := records.Question{API: c.API, Op: permissionNamed(c.Op), ID: c.ID, Body: []byte(c.Body)}
	return conf.inspect(p, false, func(db *sqlite.DB) error {
		if q.Caller.ID, err = conf.callerNamed(p, db, c.User); err != nil {
			return err
		}
		e, err := records.Explain(p.ctx, db, records.Config{APIs: conf.APIs}, q)
		if err != nil {
			return conf.locate(err)
		}
		if c.JSON {
			return printJSON(p, struct {
				API     string                  `json:"api"`
				Op      string                  `json:"op"`
				User    string                  `json:"user,omitempty"`
				ID      string                  `json:"id,omitempty"`
				Granted bool                    `json:"granted"`
				Status  int                     `json:"status"`
				Steps   []records.ExplainedStep `json:"steps"`
			}{c.API, c.Op, c.User, c.ID, e.Granted, e.Status, e.Steps})
		}
		_, err = e.WriteTo(p.stdout)
		return err
	})
}

func permissionNamed(op string) records.Permission {
	return map[string]records.Permission{
		"create": records.Create, "read": records.Read, "update": records.Update, "delete": records.Delete, "schema": records.Schema,
	}[op]
}

// callerNamed returns the id of a user as rules see it.
func (conf *config) callerNamed(p *program, db *sqlite.DB, name string) (id any, err error) {
	if name == "" {
		return nil, nil
	}
	if conf.Auth == nil {
		if n, err := strconv.ParseInt(name, 10, 64); err == nil {
			return n, nil
		}
		return name, nil
	}
	if id, err := auth.ParseUserID(name); err == nil {
		return id[:], nil
	}
	column := "username"
	if strings.Contains(name, "@") {
		column = "email"
	}
	err = db.Query(p.ctx, "SELECT id FROM _user WHERE "+column+" = ?1", []driver.Value{name}, func(row []driver.Value) error {
		id = row[0]
		return nil
	})
	if err == nil && id == nil {
		err = fmt.Errorf("there is no user %q", name)
	}
	return id, err
}

// apis loads a configuration with its record APIs, or those of the demo.
func (w where) apis(p *program) (*config, error) {
	conf, err := w.load()
	if err == nil && w.Config == "" {
		err = useDemo(p.ctx, conf)
	}
	return conf, err
}

// inspect calls fn with the database as it is: it opens nothing but the files,
// which a running server may have open as well. If there is no database, fn
// gets an empty one that has just been migrated, if empty allows it.
func (conf *config) inspect(p *program, empty bool, fn func(*sqlite.DB) error) (err error) {
	conf.Mailer = noMailer{}
	override(&conf.SiteURL, "", "http://localhost")
	_, err = os.Stat(conf.mainFile())
	fresh := errors.Is(err, fs.ErrNotExist)
	switch {
	case fresh && empty:
		return conf.inspectFresh(p, fn)
	case fresh:
		return fmt.Errorf("there is no %s: start the server once, or name its --data-dir", conf.mainFile())
	case err != nil:
		return err
	}
	c := conf.inspected(p)
	for _, d := range c.Databases {
		if _, err := os.Stat(d.Path); err != nil {
			return fmt.Errorf("open database %q: %w", d.Name, err) // rather than make it
		}
		c.SQLite.Attach = append(c.SQLite.Attach, sqlite.Attachment{Name: d.Name, Path: d.Path})
	}
	db, err := sqlite.Open(p.ctx, c.Path, c.SQLite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return fn(db)
}

// inspectFresh calls fn with what the server would begin with, in a directory
// that is removed after that.
func (conf *config) inspectFresh(p *program, fn func(*sqlite.DB) error) (err error) {
	fresh := *conf
	if fresh.DataDir, err = os.MkdirTemp("", "refserver-rules-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(fresh.DataDir)) }()
	if err := fresh.makeDirectories(); err != nil {
		return err
	}
	b, err := bedplate.Open(p.ctx, fresh.inspected(p))
	if err != nil {
		return conf.locate(err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return fn(b.DB)
}

// inspected is what is opened of conf for a look at the tables: none of the
// record APIs and streams, and no history is forgotten meanwhile.
func (conf *config) inspected(p *program) bedplate.Config {
	c := conf.backend(logger(p.stderr, slog.LevelWarn))
	c.Records, c.Realtime = nil, nil
	c.SQLite.Ballast = -1
	c.SQLite.ChangeLog = sqlite.ChangeLogOptions{MaxRows: -1, MaxBytes: -1, MaxAge: -1}
	return c
}

func printJSON(p *program, v any) error {
	out := json.NewEncoder(p.stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(v)
}
