package records

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bedplate/bedplate/sqlite"
)

// WriteTypes writes declarations of types for the records of all APIs that fit
// the schema, each named after its API. lang is one of
//
//	ts  TypeScript, for clients: API, APIInsert and APIUpdate are what a read
//	    returns and what a create and an update take
//	go  Go, for [Table]: structs in a package model, with pointers for columns
//	    that can be null
//
// The text depends on the APIs and the schema of the database alone.
func (s *Service) WriteTypes(w io.Writer, lang string) error {
	c, _ := s.catalog()
	return c.writeTypes(w, lang)
}

// WriteTypes is [Service.WriteTypes] for a service that is not there, as where a
// program is built. It needs APIs, UserTable and Files of cfg, and leaves db as
// it is. The error has all mistakes that [New] would report.
func WriteTypes(ctx context.Context, w io.Writer, db *sqlite.DB, cfg Config, lang string) error {
	c, err := newCatalog(ctx, db, cfg)
	if err != nil {
		return err
	}
	return c.writeTypes(w, lang)
}

func (c *catalog) writeTypes(w io.Writer, lang string) error {
	var text []byte
	var err error
	switch lang {
	case "ts":
		text = c.typeScript()
	case "go":
		text, err = c.goTypes()
	default:
		err = fmt.Errorf("records: types: no language %q, there are ts and go", lang)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(w, bytes.NewReader(text))
	return err
}

// names gives identifiers to things, each to one.
type names map[string]bool

// unique returns an identifier like name that is not taken, nor is it with one
// of suffixes behind it.
func (n names) unique(name string, suffixes ...string) string {
	suffixes = append(suffixes, "")
	free := func(name string) bool {
		for _, suffix := range suffixes {
			if n[name+suffix] {
				return false
			}
		}
		return true
	}
	candidate := name
	for i := 2; !free(candidate); i++ {
		candidate = name + strconv.Itoa(i)
	}
	for _, suffix := range suffixes {
		n[candidate+suffix] = true
	}
	return candidate
}

// exported returns an identifier for name in the style of Go, such as
// PostTitle for post_title.
func exported(name string) string {
	var b strings.Builder
	words := strings.FieldsFunc(name, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
	for _, word := range words {
		switch strings.ToLower(word) {
		case "id", "url", "uuid", "html", "json", "api":
			b.WriteString(strings.ToUpper(word))
			continue
		}
		first := true
		for _, c := range word {
			if first {
				c = unicode.ToUpper(c)
			}
			b.WriteRune(c)
			first = false
		}
	}
	out := b.String()
	if first, _ := utf8.DecodeRuneInString(out); unicode.IsUpper(first) {
		return out
	}
	return "X" + out
}
