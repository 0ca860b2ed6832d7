package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"sync"

	"github.com/bedplate/bedplate/internal/openapi"
)

// object is a JSON object. Its members are written in the order of their names.
type object = map[string]any

// schemaMode is what a schema is for, as the parameter mode has it.
type schemaMode string

const (
	insertMode schemaMode = "Insert"
	selectMode schemaMode = "Select"
	updateMode schemaMode = "Update"
)

var errMode = errors.New("records: the mode of a schema is none of Insert, Select and Update")

func parseMode(s string) (schemaMode, error) {
	switch m := schemaMode(s); m {
	case insertMode, selectMode, updateMode:
		return m, nil
	}
	return "", errMode
}

// JSONSchema returns the JSON Schema (draft 2020-12) of the records of an API:
// with mode "Insert" of what a create takes, "Update" of what an update takes
// and "Select" of what a read returns, with everything that may be included on
// request. Hidden and excluded columns are in none of them. Columns of other
// than STRICT tables are described as declared, whatever is in them.
func (s *Service) JSONSchema(api, mode string) ([]byte, error) {
	m, err := parseMode(mode)
	if err != nil {
		return nil, err
	}
	p, err := s.plan(api)
	if err != nil {
		return nil, err
	}
	c, _ := s.catalog()
	return c.document(p, m, everyAPI)
}

// everyAPI is for those who may see the schema of every API.
func everyAPI(*plan) bool { return true }

// serveSchema answers GET /{api}/schema.
func (s *Service) serveSchema(w http.ResponseWriter, r *http.Request, p *plan, user caller) error {
	switch may, err := s.mayDescribe(r.Context(), p, user); {
	case err != nil:
		return err
	case !may:
		return ErrDenied
	}
	mode := insertMode
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err == nil && query.Has("mode") {
		mode, err = parseMode(query.Get("mode"))
	}
	if err != nil || len(query["mode"]) > 1 {
		return errQuery.because(err)
	}
	c, _ := s.catalog()
	visible, err := s.describable(r.Context(), c.related(p), user)
	if err != nil {
		return err
	}
	body, err := c.document(p, mode, func(q *plan) bool { return visible[q] })
	if err != nil {
		return err
	}
	return writeTagged(w, r, s.weakTag(body, -1, nil), body)
}

// mayDescribe reports whether a caller may see the schema of p: with the
// permission, and if SchemaRule grants it.
func (s *Service) mayDescribe(ctx context.Context, p *plan, user caller) (granted bool, err error) {
	if !p.allows(Schema, user) {
		return false, nil
	}
	if p.schema == nil || user.system {
		return true, nil
	}
	var b builder
	b.add("SELECT 1 WHERE ", b.granted(p.schema, p.table, nil))
	st := b.statement()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.QueryTimeout)
	defer cancel()
	err = s.db.Query(ctx, st.sql, st.bind(&request{user: user}), func([]driver.Value) error {
		granted = true
		return nil
	})
	if err = refusal(err, true); errors.Is(err, ErrDenied) {
		return false, nil
	}
	return granted, err
}

// describable returns those of plans whose schema a caller may see.
func (s *Service) describable(ctx context.Context, plans []*plan, user caller) (map[*plan]bool, error) {
	visible := map[*plan]bool{}
	for _, p := range plans {
		if _, known := visible[p]; known {
			continue
		}
		may, err := s.mayDescribe(ctx, p, user)
		if err != nil {
			return nil, err
		}
		visible[p] = may
	}
	return visible, nil
}

// document returns the schema of p by itself, to be read only. What it shows of
// others is up to visible.
func (c *catalog) document(p *plan, mode schemaMode, visible func(*plan) bool) ([]byte, error) {
	key := []string{string(mode)}
	for _, q := range c.related(p) {
		if visible(q) {
			key = append(key, q.api.Name)
		}
	}
	sort.Strings(key[1:])
	return p.described.get(strings.Join(key, " "), func() ([]byte, error) {
		schema := c.describe(p, mode, "#", visible)
		schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
		return openapi.Encode(schema)
	})
}

// documents keeps some documents by what they show. The zero value is empty.
type documents struct {
	mu    sync.Mutex
	byKey map[string][]byte // guarded by mu
}

// maxDocuments bounds the documents kept for one API.
const maxDocuments = 32

func (d *documents) get(key string, build func() ([]byte, error)) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if doc, ok := d.byKey[key]; ok {
		return doc, nil
	}
	doc, err := build()
	if err != nil {
		return nil, err
	}
	if d.byKey == nil || len(d.byKey) >= maxDocuments {
		d.byKey = map[string][]byte{}
	}
	d.byKey[key] = doc
	return doc, nil
}
