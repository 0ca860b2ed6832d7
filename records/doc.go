// Package records serves tables and views of an SQLite database as REST
// record APIs, guarded by access control lists and SQL access rules.
//
// An [API] names a table and says who may do what. Nobody may do anything by
// default. Permissions come in two sets, for everybody (World) and for
// signed-in callers (Authenticated); a rule, an SQL expression over the
// caller, the row and the request, narrows an operation further:
//
//	svc, err := records.New(db, records.Config{
//		APIs: []records.API{{
//			Name:          "posts",
//			Table:         "post",
//			World:         records.Read,
//			Authenticated: records.Create | records.Update | records.Delete,
//			CreateRule:    `_REQ_.author = _USER_.id`,
//			UpdateRule:    `_ROW_.author = _USER_.id`,
//			Check:         `_ROW_.author = _USER_.id`,
//			DeleteRule:    `_ROW_.author = _USER_.id`,
//		}},
//		Caller: callerFromContext,
//	})
//	mux.Handle("/records/", http.StripPrefix("/records", svc))
//
// # Rules
//
// In a rule _USER_.id is the caller's id (NULL when anonymous), _ROW_ is the
// row before the operation, _REQ_ holds the values of the request and
// 'column' IN _REQ_FIELDS_ asks whether a column was given. A rule grants when
// its value is a number from 1 up; NULL, 0, text and errors deny. Rules are
// folded into the statement that does the work, so there is no moment between
// checking and acting. A mistake in a rule is found by [New].
//
// # Requests
//
// The HTTP contract is that of TrailBase, so its clients work unmodified:
//
//	GET    /{api}        list: limit, cursor, offset, order, filter, match, count, expand, fields, geojson
//	POST   /{api}        create one record, or an array of records
//	GET    /{api}/{id}   read: expand, fields
//	PATCH  /{api}/{id}   update the given columns
//	DELETE /{api}/{id}   delete
//	GET    /{api}/{id}/file/{column}              content of a file
//	GET    /{api}/{id}/files/{column}/{filename}  of one of several
//	GET    /{api}/schema?mode=Insert|Select|Update  JSON Schema
//
// Columns that begin with an underscore are hidden and columns in API.Exclude
// do not exist: neither appears in output, filters, orders, cursors or errors.
// A row that the caller may not read is the same to it as a row that is not
// there.
//
// Records have entity tags (RFC 9110): with If-Match an update or a delete is
// for one version only. A create with an Idempotency-Key takes place once,
// however often it is sent. [Service.ServeTransaction] takes several
// operations that stand or fall together.
//
// # Logic
//
// API.Validate and API.Bind hold conditions on the values that requests give.
// API.Before is called inside the transaction of each write and can change or
// refuse it, API.After when it is committed. A [Table] reads and writes
// records from Go, under the same rules, also in a transaction of the
// application or as the application itself. A write passes the access control
// lists, the conditions, the rule, Before, the constraints and Check, in that
// order.
//
// # Files
//
// A column with CHECK (jsonschema('std.FileUpload', column)) or
// std.FileUploads holds files. Their content is in a [FileStore], see
// Config.Files; a file that no row refers to any more is deleted.
//
// # Subscriptions
//
// With API.Subscriptions the changes of a table are recorded, and
// [Service.Subscribe] says who may be told of them and how they look: its
// [View] judges rows before and after a change by the read rule and a filter
// as a list does. Lists and reads then carry the header Change-Cursor, the
// position in the change log from where to go on so as to miss nothing.
// Package realtime does the telling.
//
// # For developers and operators
//
// [Service.WriteTypes], [Service.JSONSchema] and [Service.OpenAPI] describe the
// APIs. [Service.Lint] looks for what gives away more than is needed, and
// [Service.Explain] says why a request is granted or denied.
package records
