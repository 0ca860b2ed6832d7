package records_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

type upload struct {
	Title string           `json:"title"`
	One   *records.Upload  `json:"one"`
	Many  []records.Upload `json:"many"`
	Image records.Upload   `json:"image"`
}

type document struct {
	ID    int64          `json:"id"`
	Title string         `json:"title"`
	One   *records.File  `json:"one"`
	Many  []records.File `json:"many"`
	Image records.File   `json:"image"`
}

func TestTableFiles(t *testing.T) {
	t.Parallel()
	f := newFileService(t, fileSchema, records.FilesConfig{MaxFiles: 3})
	ctx := context.Background()
	uploads, documents := tableOf[upload](t, f.svc, "doc"), tableOf[document](t, f.svc, "doc")
	file := func(s string) records.Upload {
		return records.Upload{Filename: s + ".txt", ContentType: "text/plain", Data: []byte(s)}
	}
	a := file("a")
	id, err := uploads.Insert(ctx, upload{Title: "x", One: &a, Many: []records.Upload{file("b"), file("c")}})
	if err != nil {
		t.Fatal(err)
	}
	f.wantStored("a", "b", "c")
	got, err := documents.Get(ctx, id)
	if err != nil || got.One == nil || got.One.OriginalFilename != "a.txt" || len(got.Many) != 2 || got.Image != (records.File{}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if n := get(f, "", "/doc/1/files/many/"+got.Many[1].Filename); n.body != "c" {
		t.Errorf("%v", n)
	}
	if read, err := uploads.Get(ctx, id); err != nil || !reflect.DeepEqual(read, upload{Title: "x"}) {
		t.Errorf("uploads are read as %+v, %v", read, err)
	}

	// What was read stays, what is not there any more goes.
	wantIs(t, "update", documents.Update(ctx, id, got), nil)
	f.wantStored("a", "b", "c")
	got.Many = got.Many[1:]
	wantIs(t, "update", documents.Update(ctx, id, got), nil)
	f.wantStored("a", "c")
	wantIs(t, "update without uploads", uploads.Update(ctx, id, upload{Title: "y"}), nil)
	f.wantStored("a", "c")
	wantIs(t, "update with an upload", uploads.Update(ctx, id, upload{Many: []records.Upload{file("d")}}, "many"), nil)
	f.wantStored("a", "d")
	wantIs(t, "emptied by name", uploads.Update(ctx, id, upload{}, "one", "many"), nil)
	f.wantStored()
	if got := one(t, f.db, `SELECT title || coalesce(one, '-') || coalesce(many, '-') FROM doc`); got != "y--" {
		t.Error(got)
	}

	// A transaction takes its files along.
	undo := errors.New("undo")
	for _, outcome := range []error{undo, nil} {
		err := f.db.Update(ctx, func(tx *sqlite.Tx) error {
			wantIs(t, "inside", uploads.In(tx).Update(ctx, id, upload{One: &a}, "one"), nil)
			return outcome
		})
		wantIs(t, "transaction", err, outcome)
		if outcome != nil {
			f.wantStored()
		}
	}
	f.wantStored("a")
	err = f.db.Update(ctx, func(tx *sqlite.Tx) error {
		wantIs(t, "inside", documents.In(tx).Delete(ctx, id), nil)
		return undo
	})
	wantIs(t, "transaction", err, undo)
	f.wantStored("a")

	for name, try := range map[string]func() error{
		"another's file": func() error {
			return documents.Update(ctx, id, document{Many: []records.File{{Filename: "a_1234567890.txt"}}}, "many")
		},
		"a file in a new record": func() error {
			_, err := documents.Insert(ctx, document{One: &records.File{Filename: "a_1234567890.txt"}})
			return err
		},
		"no name":      func() error { return documents.Update(ctx, id, document{One: &records.File{}}, "one") },
		"too many":     func() error { return uploads.Update(ctx, id, upload{Many: make([]records.Upload, 4)}, "many") },
		"not an image": func() error { return uploads.Update(ctx, id, upload{Image: a}, "image") },
	} {
		var refused *records.Error
		if err := try(); !errors.As(err, &refused) || refused.Status >= 500 {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.wantStored("a")
	type wrong struct {
		One  []records.File `json:"one"`
		Many records.File   `json:"many"`
	}
	if _, err := records.TableOf[wrong](f.svc, "doc"); err == nil || strings.Count(err.Error(), "of files") != 2 {
		t.Errorf("%v", err)
	}
	without := newService(t, openDB(t, fileSchema), records.API{Name: "doc", Table: "doc", World: everything})
	if _, err := tableOf[upload](t, without, "doc").Insert(ctx, upload{One: &a}); err == nil {
		t.Error("stored without a store")
	}
}
