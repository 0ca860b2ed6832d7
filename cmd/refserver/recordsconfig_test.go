package main

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
)

func TestLoadRecordExtras(t *testing.T) {
	t.Parallel()
	conf, err := loadConfig(writeConfig(t, `
record_apis:
  - name: posts
    table_name: post
    full_text: post_words
    back_relations:
      - {name: comments, api: comments, column: post, limit: 10}
      - {name: likes, api: likes, column: post}
    validate:
      title: required,min=3
      "null": omitempty,email
  - name: plain
    table_name: plain
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []records.API{{
		Name: "posts", Table: "post", FullText: "post_words",
		Back: []records.BackRelation{
			{Name: "comments", API: "comments", Column: "post", Limit: 10},
			{Name: "likes", API: "likes", Column: "post"},
		},
		Validate: map[string]string{"title": "required,min=3", "null": "omitempty,email"},
	}, {Name: "plain", Table: "plain"}}
	if !reflect.DeepEqual(conf.APIs, want) {
		t.Errorf("record APIs\n%+v, want\n%+v", conf.APIs, want)
	}
}

func TestLoadRecordExtrasReportsEveryMistake(t *testing.T) {
	t.Parallel()
	const text = `
record_apis:
  - name: posts
    table_name: post
    full_text: [words]            # want text, found sequence
    back_relations:
      - {name: a, api: b}         # a back relation needs a name, an api and a column
      - comments                  # want a mapping, found "comments"
      - name: c
        api: d
        column: e
        limit: 0                  # want a whole number from 1
        rule: "1"                 # unknown key "rule"
    validate:
      title: 3                    # want text, found 3
      1: required                 # want the name of a column, found 1
      body: required
      body: min=3                 # column "body" is already there
  - name: others
    table_name: other
    validate: [required]          # want a mapping, found sequence
`
	wantMistakes(t, writeConfig(t, text), text)
}

// What only the database can judge is refused at the line that it is about.
func testRefusalsOfRecords(t *testing.T, binary string) {
	const text = `
migrations: sql
record_apis:
  - name: comments
    table_name: comment
    full_text: comment_words            # full text
  - name: a_name_that_is_longer_than_other_names
    table_name: comment
  - name: posts
    table_name: post
    back_relations:
      - {name: answers, api: comments, column: post}
      - name: a                         # back relation "a": column "id" of api "comments" is not a foreign key
        api: comments
        column: id
      - name: b                         # back relation "b"
        api: a_name_that_is_longer_than_other_names
        column: nowhere
    validate:
      title: required,max=80
      titel: required                   # validate: no column "titel"
      body: requird                     # validate: column "body"
  - name: view
    table_name: titles
    validate:
      title: required                   # is a view
`
	config := writeConfig(t, text, "sql/README")
	write(t, filepath.Join(filepath.Dir(config), "sql", "0001_posts.sql"), `
		CREATE TABLE post (id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT) STRICT;
		CREATE TABLE comment (id INTEGER PRIMARY KEY, post INTEGER NOT NULL REFERENCES post(id)) STRICT;
		CREATE VIEW titles AS SELECT id, title FROM post;`)
	out := refused(t, binary, "--config", config, "--data-dir", t.TempDir())
	mistakes := 0
	for i, line := range strings.Split(text, "\n") {
		_, want, ok := strings.Cut(line, "# ")
		if !ok {
			continue
		}
		mistakes++
		place := fmt.Sprintf("%s:%d: ", config, i+1)
		found := false
		for got := range strings.Lines(out) {
			found = found || strings.Contains(got, place) && strings.Contains(got, want)
		}
		if !found {
			t.Errorf("no line %s... %s", place, want)
		}
	}
	if got := strings.Count(out, config+":"); got != mistakes {
		t.Errorf("%d mistakes, want %d", got, mistakes)
	}
	if t.Failed() {
		t.Logf("all mistakes:\n%s", out)
	}
}
