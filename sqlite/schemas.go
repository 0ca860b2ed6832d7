package sqlite

// JSONSchema returns the text of a JSON Schema by the name that the SQL
// function jsonschema(name, value) knows it by: one of Options.Schemas or a
// built-in one.
func (db *DB) JSONSchema(name string) (text string, ok bool) {
	switch name {
	case "std.FileUpload":
		return schemaFileUpload, true
	case "std.FileUploads":
		return schemaFileUploads, true
	case "std.KeyValue":
		return schemaKeyValue, true
	}
	text, ok = db.opts.Schemas[name]
	return text, ok
}
