package records

import (
	"context"
	"net/http"
	"slices"

	"github.com/bedplate/bedplate/internal/openapi"
	"github.com/bedplate/bedplate/sqlite"
)

// OpenAPIOptions says how what [Service.OpenAPI] returns fits into a document.
type OpenAPIOptions struct {
	// Prefix is the path that the service is mounted at, without a slash at
	// the end; see [Service.At].
	Prefix string

	// APIs are the names of the APIs to describe; nil: all. Of others, as far
	// as their records can be included, only that there are records is told.
	APIs []string

	// Security are requirement objects, as operations have them under
	// security, one of which tells who the caller is. nil: not described.
	Security []any

	// Subscriptions tells that package realtime serves
	// {Prefix}/{api}/subscribe/{record}.
	Subscriptions bool

	// Transaction is the path of [Service.ServeTransaction]; empty: nowhere.
	Transaction string
}

// Describable returns the names of the APIs whose schema the caller of ctx may
// see, with the permission and if SchemaRule grants it, and a number that
// differs when the schema of the database does.
func (s *Service) Describable(ctx context.Context) (apis []string, version int64, err error) {
	user, err := s.caller(ctx)
	if err != nil {
		return nil, 0, err
	}
	c, version := s.catalog()
	for _, p := range c.plans() {
		may, err := s.mayDescribe(ctx, p, user)
		if err != nil {
			return nil, 0, err
		}
		if may {
			apis = append(apis, p.api.Name)
		}
	}
	return apis, version, nil
}

// ServeError answers a request with err as the service itself does: with what
// it says if it is an [Error], and otherwise with 500 and a line in the log.
func (s *Service) ServeError(w http.ResponseWriter, r *http.Request, err error) { s.answer(w, r, err) }

// OpenAPI returns two parts of an OpenAPI document (version 3.1.0): paths, with
// the operations that somebody may use, and the schemas that these refer to as
// #/components/schemas/{name}, which begin with the name of their API. Refusals
// are #/components/responses/{status}, which is for the rest of the document to
// define. An API that does not fit the schema any more is left out.
func (s *Service) OpenAPI(o OpenAPIOptions) (paths, schemas map[string]any) {
	c, _ := s.catalog()
	return c.openAPI(o)
}

// OpenAPI is [Service.OpenAPI] for a service that is not there, as before a
// deployment. It needs APIs, UserTable and Files of cfg, and leaves db as it is.
// The error has all mistakes that [New] would report.
func OpenAPI(ctx context.Context, db *sqlite.DB, cfg Config, o OpenAPIOptions) (paths, schemas map[string]any, err error) {
	c, err := newCatalog(ctx, db, cfg)
	if err != nil {
		return nil, nil, err
	}
	paths, schemas = c.openAPI(o)
	return paths, schemas, nil
}

func (c *catalog) openAPI(o OpenAPIOptions) (paths, schemas object) {
	d := &openAPI{catalog: c, o: o, paths: object{}, schemas: object{}}
	var writable []string
	open := false // for everybody to write to
	for _, p := range c.plans() {
		if !d.shows(p) {
			continue
		}
		d.operations(p)
		if !p.table.view && p.grants(Create|Update|Delete) {
			writable = append(writable, p.api.Name)
			open = open || p.api.World&(Create|Update|Delete) != 0
		}
	}
	if o.Transaction != "" {
		op := transactionOperation(writable)
		op["tags"] = []string{"transaction"}
		d.secure(op, open)
		d.paths[o.Transaction] = object{"post": op}
	}
	return d.paths, d.schemas
}

// grants reports whether anybody has one of the permissions op.
func (p *plan) grants(op Permission) bool { return (p.api.World|p.api.Authenticated)&op != 0 }

// openAPI makes the parts of a document.
type openAPI struct {
	*catalog
	o              OpenAPIOptions
	paths, schemas object
}

// secure adds the requirements of an operation, none of which counts if it is
// open to everybody.
func (d *openAPI) secure(operation object, open bool) {
	switch {
	case d.o.Security == nil:
	case open:
		operation["security"] = append([]any{object{}}, d.o.Security...)
	default:
		operation["security"] = d.o.Security
	}
}

func (d *openAPI) shows(p *plan) bool {
	return d.o.APIs == nil || slices.Contains(d.o.APIs, p.api.Name)
}

// operations adds those of p.
func (d *openAPI) operations(p *plan) {
	all := d.o.Prefix + "/" + p.api.Name
	one := all + "/{record}"
	add := func(path, method string, op Permission, operation object) {
		item, _ := d.paths[path].(object)
		if item == nil {
			item = object{}
			d.paths[path] = item
		}
		operation["tags"] = []string{p.api.Name}
		d.secure(operation, p.api.World&op != 0)
		item[method] = operation
	}
	if p.grants(Read) {
		add(all, "get", Read, d.list(p))
		add(one, "get", Read, d.read(p))
		single, every := p.fileNames()
		if len(single) > 0 {
			add(one+"/file/{column}", "get", Read, download(p, p.api.Name+".file", columnParam(single)))
		}
		if len(every) > 0 {
			add(one+"/files/{column}/{filename}", "get", Read,
				download(p, p.api.Name+".files", columnParam(every), openapi.Path("filename", "as the record has it", openapi.Text())))
		}
		if p.live != nil && d.o.Subscriptions {
			add(all+"/subscribe/{record}", "get", Read, subscribe(p))
		}
	}
	if p.grants(Create) && !p.table.view {
		add(all, "post", Create, d.create(p))
	}
	if p.grants(Update) && !p.table.view {
		add(one, "patch", Update, d.update(p))
	}
	if p.grants(Delete) && !p.table.view {
		add(one, "delete", Delete, deletion(p))
	}
	if p.grants(Schema) {
		add(all+"/schema", "get", Schema, schemaOperation(p))
	}
}

// schema adds the schema of p's records and returns a reference to it.
func (d *openAPI) schema(p *plan, mode schemaMode) object {
	name := p.api.Name + "." + string(mode)
	ref := "#/components/schemas/" + name
	if d.schemas[name] == nil {
		d.schemas[name] = d.describe(p, mode, ref, d.shows)
	}
	return object{"$ref": ref}
}

func (d *openAPI) list(p *plan) object {
	records := object{
		"type": "object", "required": []string{"records"},
		"properties": object{
			"cursor":      object{"type": "string", "description": "where the next page begins"},
			"total_count": object{"type": "integer"},
			"records":     object{"type": "array", "items": d.schema(p, selectMode)},
		},
	}
	params := []any{
		openapi.Query("limit", "size of the page", object{"type": "integer", "minimum": 0, "maximum": p.limit, "default": min(50, p.limit)}),
		openapi.Query("offset", "records to leave out", object{"type": "integer", "minimum": 0}),
		openapi.Query("order", "columns to sort by, with a minus for descending order", openapi.List(nil)),
		openapi.Query("count", "whether total_count is wanted", object{"type": "boolean"}),
		filterParam(),
		fieldsParam(p),
	}
	if !p.table.view {
		params = append(params,
			openapi.Query("cursor", "of the page before", openapi.Text()),
			openapi.Query("skip_cursor", "whether the response shall have none", object{"type": "boolean"}))
	}
	if p.api.FullText != "" {
		params = append(params, openapi.Query("match", "full-text query, as FTS5 of SQLite has it", openapi.Text()))
	}
	if names := p.includable(); len(names) > 0 {
		params = append(params, expandParam(names))
	}
	var body any = records
	if names := p.columnNames(geoFormat); len(names) > 0 {
		params = append(params, openapi.Query("geojson", "geometry column of GeoJSON output", object{"enum": names}))
		body = object{"anyOf": []any{records, featureSchema()}}
	}
	params = append(params, noneMatchParam())
	headers := object{"ETag": openapi.ETag()}
	if p.live != nil {
		headers["Change-Cursor"] = changeCursor()
	}
	op := openapi.Operation(p.api.Name+".list", "List records of "+p.api.Name, params, openapi.Response(openapi.JSON(body), headers), 400, 403, 503)
	openapi.Add(op, http.StatusNotModified, openapi.NotModified())
	return op
}

func (d *openAPI) read(p *plan) object {
	params := []any{recordParam(p), noneMatchParam(), fieldsParam(p)}
	if names := p.includable(); len(names) > 0 {
		params = append(params, expandParam(names))
	}
	headers := object{"ETag": openapi.ETag()}
	if p.live != nil {
		headers["Change-Cursor"] = changeCursor()
	}
	op := openapi.Operation(p.api.Name+".read", "Read a record of "+p.api.Name, params,
		openapi.Response(openapi.JSON(d.schema(p, selectMode)), headers), 400, missingStatus(p.read != nil), 403, 503)
	openapi.Add(op, http.StatusNotModified, openapi.NotModified())
	return op
}

// missingStatus is what a request for a record that is not there is answered
// with.
func missingStatus(ruled bool) int {
	if ruled {
		return http.StatusForbidden
	}
	return http.StatusNotFound
}

func (d *openAPI) create(p *plan) object {
	record := d.schema(p, insertMode)
	body := openapi.JSON(object{"anyOf": []any{record, object{"type": "array", "items": record, "minItems": 1, "maxItems": maxBulk}}})
	if len(p.writableFiles(d.files)) > 0 {
		body["multipart/form-data"] = object{"schema": p.formSchema()}
	}
	ids := object{
		"type": "object", "required": []string{"ids"},
		"properties": object{"ids": object{"type": "array", "items": openapi.Text()}},
	}
	op := openapi.Operation(p.api.Name+".create", "Create records of "+p.api.Name,
		[]any{idempotencyParam(), openapi.Query("redirect_uri", "path to go to afterwards", openapi.Text())},
		openapi.Response(openapi.JSON(ids), nil), 400, 403, 413, 422, 503, 507)
	op["requestBody"] = object{"required": true, "content": body}
	openapi.Add(op, http.StatusSeeOther, object{
		"description": "created, with redirect_uri",
		"headers":     object{"Location": object{"schema": openapi.Text()}},
	})
	return op
}

func (d *openAPI) update(p *plan) object {
	body := openapi.JSON(d.schema(p, updateMode))
	if len(p.writableFiles(d.files)) > 0 {
		body["multipart/form-data"] = object{"schema": p.formSchema()}
	}
	op := openapi.Operation(p.api.Name+".update", "Update a record of "+p.api.Name, conditionParams(p),
		openapi.Response(nil, object{"ETag": openapi.ETag()}), 400, missingStatus(p.update != nil), 403, 412, 413, 503, 507)
	op["requestBody"] = object{"required": true, "content": body}
	return op
}

func deletion(p *plan) object {
	return openapi.Operation(p.api.Name+".delete", "Delete a record of "+p.api.Name, conditionParams(p),
		openapi.Response(object{"text/plain": object{"schema": object{"const": "deleted"}}}, nil),
		400, missingStatus(p.del != nil), 403, 412, 503)
}

func schemaOperation(p *plan) object {
	modes := object{"enum": []schemaMode{insertMode, selectMode, updateMode}, "default": insertMode}
	op := openapi.Operation(p.api.Name+".schema", "JSON Schema of "+p.api.Name,
		[]any{openapi.Query("mode", "what the schema is for", modes), noneMatchParam()},
		openapi.Response(openapi.JSON(object{"type": "object"}), object{"ETag": openapi.ETag()}), 400, 403, 503)
	openapi.Add(op, http.StatusNotModified, openapi.NotModified())
	return op
}

func download(p *plan, id string, params ...any) object {
	content := object{"*/*": object{"schema": object{}}}
	params = append([]any{
		recordParam(p), noneMatchParam(), openapi.Header("Range", "one range of bytes"),
	}, params...)
	op := openapi.Operation(id, "Download a file of "+p.api.Name, params, openapi.Response(content, object{"ETag": openapi.ETag()}), 400, 403, 404, 503)
	openapi.Add(op, http.StatusPartialContent, object{"description": "part of the file", "content": content})
	openapi.Add(op, http.StatusNotModified, openapi.NotModified())
	openapi.Add(op, http.StatusRequestedRangeNotSatisfiable, object{"description": "the file has no such range"})
	return op
}

func subscribe(p *plan) object {
	op := openapi.Operation(p.api.Name+".subscribe", "Changes of "+p.api.Name+", as they happen",
		[]any{
			openapi.Path("record", "key of a record, or * for all", openapi.Text()),
			filterParam(),
			openapi.Header("Last-Event-ID", "position to go on from"),
			openapi.Query("last_event_id", "the same", openapi.Text()),
			openapi.Query("since", "the same, such as a Change-Cursor", openapi.Text()),
			openapi.Query("ticket", "instead of other credentials", openapi.Text()),
		},
		openapi.Response(object{"text/event-stream": object{"schema": openapi.Text()}}, nil), 400, 401, missingStatus(p.read != nil), 403, 503)
	return op
}

func transactionOperation(apis []string) object {
	name := openapi.Text()
	if len(apis) > 0 {
		name["enum"] = apis
	}
	id := object{"description": `the key of a record, or {"$id": n} for that of operation n`, "type": []string{"string", "integer", "object"}}
	value := object{"type": "object"}
	one := func(kind string, required []string, arguments object) any {
		arguments["api_name"] = name
		return object{
			"type": "object", "required": []string{kind},
			"properties": object{kind: object{"type": "object", "required": required, "properties": arguments}},
		}
	}
	body := object{
		"type": "object",
		"properties": object{
			"transaction": object{"type": "boolean", "description": "whether all operations stand or fall together", "default": false},
			"operations": object{
				"type": "array", "maxItems": maxBatch,
				"items": object{"oneOf": []any{
					one("Create", []string{"api_name", "value"}, object{"value": value}),
					one("Update", []string{"api_name", "record_id", "value"}, object{"record_id": id, "value": value}),
					one("Delete", []string{"api_name", "record_id"}, object{"record_id": id}),
				}},
			},
		},
	}
	answer := object{
		"type": "object", "required": []string{"ids", "results"},
		"properties": object{
			"ids": object{"type": "array", "items": object{"type": []string{"string", "null"}}},
			"results": object{"type": "array", "items": object{
				"type": "object", "properties": object{"Id": openapi.Text(), "Error": openapi.Text()},
			}},
		},
	}
	op := openapi.Operation("transaction", "Several operations in one request", []any{idempotencyParam()},
		openapi.Response(openapi.JSON(answer), nil), 400, 403, 404, 405, 413, 422, 503, 507)
	op["requestBody"] = object{"required": true, "content": openapi.JSON(body)}
	return op
}
