package records

import (
	"context"
	"errors"

	"github.com/bedplate/bedplate/sqlite"
)

// A catalog is what is known of the APIs for those who describe them.
type catalog struct {
	db     *sqlite.DB
	apis   []API
	files  bool // whether file columns can be written
	byName map[string]*plan
}

// catalog returns that of the present schema.
func (s *Service) catalog() (c *catalog, version int64) {
	for i := range s.cfg.APIs[:min(1, len(s.cfg.APIs))] {
		_, _ = s.plan(s.cfg.APIs[i].Name) // which looks whether the schema has changed
	}
	set := s.plans.Load()
	return &catalog{db: s.db, apis: s.cfg.APIs, files: s.cfg.Files != nil, byName: set.byName}, set.schema
}

// newCatalog returns that of a service that is not there. The error has all
// mistakes in cfg.
func newCatalog(ctx context.Context, db *sqlite.DB, cfg Config) (*catalog, error) {
	cfg = cfg.withDefaults()
	plans, mistakes, err := compile(ctx, db, cfg, nil)
	if err = errors.Join(mistakes, err); err != nil {
		return nil, err
	}
	return &catalog{db: db, apis: cfg.APIs, files: cfg.Files != nil, byName: plans}, nil
}

// plans returns the plans in the order of the APIs, but for those that do not
// fit the schema any more.
func (c *catalog) plans() (all []*plan) {
	for i := range c.apis {
		if p := c.byName[c.apis[i].Name]; p != nil {
			all = append(all, p)
		}
	}
	return all
}

// related returns the plans whose records can be included with those of p.
func (c *catalog) related(p *plan) (all []*plan) {
	for _, e := range p.expand {
		all = append(all, e.apis...)
	}
	for _, b := range p.api.Back {
		if q := c.byName[b.API]; q != nil {
			all = append(all, q)
		}
	}
	return all
}

// customSchema returns the schema of a JSON column, if it has one that others
// can be told.
func (c *catalog) customSchema(col *column) (*customSchema, bool) {
	text := col.schema.text
	if text == "" {
		text, _ = c.db.JSONSchema(col.schema.name)
	}
	return parseCustom(text)
}
