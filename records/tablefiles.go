package records

import (
	"database/sql/driver"
	"reflect"
)

// holdsFiles reports whether fields of type t can hold the file column c.
func holdsFiles(t reflect.Type, c *column) bool {
	switch reflect.New(t).Interface().(type) {
	case *File, **File, *Upload, **Upload:
		return c.format == fileFormat
	case *[]File, *[]Upload:
		return c.format == filesFormat
	}
	return false
}

// loadFiles sets dst to the files of a record. An Upload is what is to be
// stored: it stays empty.
func loadFiles(dst reflect.Value, c *column, v driver.Value) {
	dst.SetZero()
	if v != nil && dst.Type() == reflect.TypeFor[[]File]() {
		dst.Set(reflect.ValueOf([]File{}))
	}
	_ = eachFile(c, v, func(f storedFile, _ []byte) error {
		switch dst := dst.Addr().Interface().(type) {
		case *File:
			*dst = f.File
		case **File:
			*dst = &f.File
		case *[]File:
			*dst = append(*dst, f.File)
		}
		return nil
	})
}

// storeFiles gives the file column c what the field v has: a [File] is one to
// keep, an [Upload] a new one. Without any upload, the column is emptied only
// if it is named.
func (p *plan) storeFiles(r *request, c *column, v reflect.Value, named bool) error {
	var keep []File
	var uploads []Upload
	uploading := false
	switch v := v.Interface().(type) {
	case File:
		if v != (File{}) {
			keep = []File{v}
		}
	case *File:
		if v != nil {
			keep = []File{*v}
		}
	case []File:
		keep = v
	case Upload:
		if uploading = true; v.Filename != "" || v.ContentType != "" || v.Data != nil {
			uploads = []Upload{v}
		}
	case *Upload:
		if uploading = true; v != nil {
			uploads = []Upload{*v}
		}
	case []Upload:
		uploading, uploads = true, v
	}
	switch {
	case len(uploads) > 0:
		return p.uploadValue(r, c, uploads...)
	case uploading && !named:
		return nil
	case len(keep) == 0 && v.Kind() == reflect.Slice && !v.IsNil():
		r.values[c.index] = joinFiles(c, nil)
	case len(keep) == 0:
		r.values[c.index] = nil
	case p.files == nil:
		return errParams
	case len(keep) > p.files.cfg.MaxFiles:
		return errTooManyFiles
	default:
		elements := make([]fileElement, len(keep))
		for i, f := range keep {
			if elements[i].keep = f.Filename; f.Filename == "" {
				return errParams
			}
		}
		value, err := r.fileValue(c, elements)
		if err != nil {
			return err
		}
		r.values[c.index] = value
	}
	r.given.add(c.index)
	return nil
}
