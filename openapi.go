package bedplate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/openapi"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// openAPIPath is where the document lives.
const openAPIPath = "/api/openapi.json"

// OpenAPI returns a description of what [Backend.Mount] registers, as an
// OpenAPI document of version 3.1.0: every operation that somebody is allowed
// to use. The pages of the sign-in, which are for people, are not in it.
//
// It has no servers: paths begin where the handler is mounted.
//
// GET /api/openapi.json shows of the record APIs only those that the caller has
// the Schema permission for.
func (b *Backend) OpenAPI() ([]byte, error) { return openapi.Encode(b.sections().document(nil)) }

// OpenAPI is [Backend.OpenAPI] for a backend that is not there, as before a
// deployment. It needs Records, Files, Auth and Realtime of cfg, and leaves db,
// which has the schema, as it is. The error has all mistakes in Records.
func OpenAPI(ctx context.Context, db *sqlite.DB, cfg Config) ([]byte, error) {
	s := sections{realtime: cfg.hasRealtime()}
	if cfg.Auth != nil {
		s.signIn = func(prefix string) (paths, schemas, security map[string]any) { return auth.OpenAPI(*cfg.Auth, prefix) }
	}
	var mistakes error
	s.records = func(o records.OpenAPIOptions) (paths, schemas map[string]any) {
		paths, schemas, mistakes = records.OpenAPI(ctx, db, records.Config{APIs: cfg.Records, Files: cfg.Files}, o)
		return paths, schemas
	}
	document := s.document(nil)
	if mistakes != nil {
		return nil, mistakes
	}
	return openapi.Encode(document)
}

// sections are where the parts of a document come from.
type sections struct {
	records  func(records.OpenAPIOptions) (paths, schemas map[string]any)
	signIn   func(prefix string) (paths, schemas, security map[string]any) // nil: none
	realtime bool
}

func (b *Backend) sections() sections {
	s := sections{records: b.Records.OpenAPI, realtime: b.Realtime != nil}
	if b.Auth != nil {
		s.signIn = b.Auth.OpenAPI
	}
	return s
}

// document describes some record APIs, nil for all, and everything else.
func (s sections) document(apis []string) map[string]any {
	var security []any
	paths, schemas, schemes := map[string]any{}, map[string]any{}, map[string]any{}
	if s.signIn != nil {
		security = auth.Security()
		paths, schemas, schemes = s.signIn(authPrefix)
		keys := openapi.Response(map[string]any{"application/jwk-set+json": map[string]any{"schema": map[string]any{"type": "object"}}}, nil)
		paths["/.well-known/jwks.json"] = map[string]any{"get": openapi.Operation("jwks", "Keys that sign auth tokens (RFC 7517)", nil, keys)}
	}
	if s.realtime {
		maps.Copy(paths, realtime.OpenAPI(realtimePrefix, security))
	}
	recordPaths, recordSchemas := s.records(records.OpenAPIOptions{
		Prefix: recordsPrefix, APIs: apis, Security: security, Subscriptions: s.realtime, Transaction: transactionPrefix + "/execute",
	})
	maps.Copy(paths, recordPaths)
	maps.Copy(schemas, recordSchemas)
	well := openapi.Response(map[string]any{"text/plain": map[string]any{"schema": map[string]any{"const": "Ok"}}}, nil)
	paths["/api/healthcheck"] = map[string]any{"get": openapi.Operation("healthcheck", "Whether the server is well", nil, well, http.StatusServiceUnavailable)}
	paths[openAPIPath] = map[string]any{"get": documentOperation()}
	return map[string]any{
		"openapi": "3.1.0",
		"info":    map[string]any{"title": "API", "version": "1"},
		"paths":   paths,
		// Operations have their own. Of the others there is nothing to be known.
		"security": []any{},
		"components": map[string]any{
			"schemas": schemas, "securitySchemes": schemes, "responses": openapi.Refusals(paths),
		},
	}
}

func documentOperation() map[string]any {
	op := openapi.Operation("openapi", "This document", []any{openapi.Header("If-None-Match", "entity tags of what the client has")},
		openapi.Response(openapi.JSON(map[string]any{"type": "object"}), map[string]any{"ETag": openapi.ETag()}), 503)
	openapi.Add(op, http.StatusNotModified, openapi.NotModified())
	return op
}

// maxDocuments bounds the documents that are kept, one for each set of record
// APIs that some caller may know.
const maxDocuments = 32

// A documentHandler serves the document as its callers may see it.
type documentHandler struct {
	b  *Backend
	mu sync.Mutex
	// guarded by mu
	version int64 // of the schema, which all documents are of
	made    map[string]document
}

type document struct {
	body []byte
	etag string
}

// openAPIHandler returns the handler of GET /api/openapi.json.
func (b *Backend) openAPIHandler() http.Handler { return b.behindAuth(&documentHandler{b: b}) }

func (h *documentHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	doc, err := h.document(r.Context())
	if err != nil {
		h.b.Records.ServeError(w, r, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "private, no-cache")
	header.Add("Vary", "Authorization, Cookie")
	header.Set("ETag", doc.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(doc.body))
}

// document returns the document for the caller of ctx.
func (h *documentHandler) document(ctx context.Context) (document, error) {
	apis, version, err := h.b.Records.Describable(ctx)
	if err != nil {
		return document{}, err
	}
	key := strings.Join(apis, " ")
	h.mu.Lock()
	defer h.mu.Unlock()
	if doc, ok := h.made[key]; ok && h.version == version {
		return doc, nil
	}
	if apis == nil {
		apis = []string{}
	}
	described := h.b.sections().document(apis)
	described["servers"] = []any{map[string]any{"url": ".."}} // relative to where the document is
	body, err := openapi.Encode(described)
	if err != nil {
		return document{}, err
	}
	sum := sha256.Sum256(body)
	doc := document{body, strconv.Quote(base64.RawURLEncoding.EncodeToString(sum[:16]))}
	if h.made == nil || h.version != version || len(h.made) >= maxDocuments {
		h.version, h.made = version, map[string]document{}
	}
	h.made[key] = doc
	return doc, nil
}
