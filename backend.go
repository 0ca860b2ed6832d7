// Package bedplate mounts a complete record backend on a Go service: record
// APIs over the service's own SQLite database, on the service's own mux.
//
//	b, err := bedplate.Open(ctx, bedplate.Config{
//		Path:       "app.db",
//		Migrations: migrations, // an fs.FS of numbered .sql files
//		Records: []records.API{{
//			Name:          "posts",
//			Table:         "post",
//			World:         records.Read,
//			Authenticated: records.Create | records.Update | records.Delete,
//			CreateRule:    `_REQ_.author = _USER_.id`,
//			UpdateRule:    `_ROW_.author = _USER_.id`,
//			Check:         `_ROW_.author = _USER_.id`,
//		}},
//		Auth: &auth.Config{SiteURL: "https://app.example.com"},
//	})
//	if err != nil {
//		return err
//	}
//	defer b.Close()
//	mux := http.NewServeMux()
//	b.Mount(mux)
//	mux.HandleFunc("GET /{$}", home)
//	return b.Serve(ctx, &http.Server{Addr: ":8080", Handler: mux})
//
// The package only composes: [sqlite] is the database handle, [records] the
// record APIs, [auth] the sign-in, [realtime] the subscriptions, and each can
// be used without it. It parses no flags, handles no signals, keeps no globals
// and writes nowhere but beside the given paths, so any number of backends can
// live in one process.
package bedplate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// A Backend is the parts that [Open] has put together. It is safe for
// concurrent use.
type Backend struct {
	DB      *sqlite.DB
	Records *records.Service
	Auth    *auth.Service // nil without Config.Auth

	// Realtime publishes the application's own events; nil without
	// Config.Realtime and Subscriptions.
	Realtime *realtime.Service

	handler  http.Handler
	sweeper  *sweeper // nil without Config.Files
	replicas []Replica
	drain    time.Duration
	ownDB    bool
}

// Open opens the database, applies migrations and checks all record APIs
// against the schema. It reports all mistakes of a part at once. When it
// fails, nothing stays open.
func Open(ctx context.Context, cfg Config) (_ *Backend, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	b := &Backend{DB: cfg.DB, drain: cfg.DrainTimeout, ownDB: cfg.DB == nil}
	if b.drain == 0 {
		b.drain = 10 * time.Second
	}
	replicated := cfg.replications()
	if b.ownDB {
		if err = restoreMissing(ctx, replicated); err != nil {
			return nil, err
		}
		if b.DB, err = openDatabases(ctx, cfg); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if err = b.startReplicas(ctx, replicated); err != nil {
		return nil, err
	}
	if cfg.Auth != nil {
		if err := auth.Migrate(ctx, b.DB); err != nil {
			return nil, err
		}
	}
	if cfg.Migrations != nil {
		if err := b.DB.Migrate(ctx, cfg.Migrations); err != nil {
			return nil, err
		}
	}
	if cfg.Auth != nil {
		if b.Auth, err = newAuth(ctx, b.DB, cfg); err != nil {
			return nil, err
		}
		cfg.Caller = signedIn
	}
	b.Records, err = records.New(b.DB, records.Config{
		APIs:        cfg.Records,
		Caller:      cfg.Caller,
		Files:       cfg.Files,
		HookTimeout: cfg.HookTimeout,
		BodyLimit:   cfg.BodyLimit,
		CursorKey:   cfg.CursorKey,
		Logger:      cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	if cfg.Files != nil {
		b.sweeper = b.startSweeping(func(err error) { cfg.Logger.Error("remove unused files", "error", err) })
	}
	if cfg.hasRealtime() {
		if b.Realtime, err = b.newRealtime(cfg); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	b.Mount(mux)
	mux.HandleFunc("/", notFound)
	b.handler = mux
	return b, nil
}

func newAuth(ctx context.Context, db *sqlite.DB, cfg Config) (*auth.Service, error) {
	c := *cfg.Auth
	if c.Logger == nil {
		c.Logger = cfg.Logger
	}
	return auth.New(ctx, db, c)
}

// signedIn is the Config.Caller that goes with Auth.
func signedIn(ctx context.Context) records.Caller {
	u := auth.FromContext(ctx)
	if u == nil {
		return records.Caller{}
	}
	c := records.Caller{ID: u.ID[:]}
	if u.Credential == auth.APIKey {
		c.Allow = func(api string, p records.Permission) bool { return u.Allows(api, operations[p]) }
	}
	return c
}

// operations are the permissions as the scopes of API keys name them.
var operations = map[records.Permission]string{
	records.Create: "create", records.Read: "read", records.Update: "update",
	records.Delete: "delete", records.Schema: "schema",
}

// openDatabases migrates the further files, each by itself, and opens the
// main one with them attached.
func openDatabases(ctx context.Context, cfg Config) (*sqlite.DB, error) {
	opts := cfg.SQLite
	if opts.Logger == nil {
		opts.Logger = cfg.Logger
	}
	opts.Replicated = opts.Replicated || len(cfg.replications()) > 0
	for _, d := range cfg.Databases {
		if d.Migrations != nil {
			if err := migrateFile(ctx, d, opts); err != nil {
				return nil, fmt.Errorf("database %q: %w", d.Name, err)
			}
		}
	}
	for _, d := range cfg.Databases {
		opts.Attach = append(opts.Attach, sqlite.Attachment{Name: d.Name, Path: d.Path})
	}
	return sqlite.Open(ctx, cfg.Path, opts)
}

func migrateFile(ctx context.Context, d Database, opts sqlite.Options) (err error) {
	db, err := sqlite.Open(ctx, d.Path, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Migrate(ctx, d.Migrations)
}

// Where the parts of the protocol live.
const (
	recordsPrefix     = "/api/records/v1"
	transactionPrefix = "/api/transaction/v1"
	authPrefix        = "/api/auth/v1"
	pagesPrefix       = "/_/auth"
)

// Mount registers the routes on mux: the record APIs below /api/records/v1/,
// POST /api/transaction/v1/execute, GET /api/openapi.json and GET
// /api/healthcheck; with Config.Auth also the sign-in below /api/auth/v1/, its
// pages below /_/auth/ and /.well-known/jwks.json; with Realtime the
// application's channels below /api/realtime/v1/. To place them
// under a prefix, mount [Backend.Handler] behind [http.StripPrefix] instead,
// and begin Prefix and PagesPrefix of Config.Auth with it.
func (b *Backend) Mount(mux *http.ServeMux) {
	mux.HandleFunc(recordsPrefix, notFound) // not a redirect, which would miss an outer prefix
	mux.Handle(recordsPrefix+"/", b.behindAuth(b.recordAPIs()))
	mux.HandleFunc(transactionPrefix, notFound)
	mux.HandleFunc(transactionPrefix+"/", notFound)
	mux.Handle(transactionPrefix+"/execute", b.behindAuth(http.HandlerFunc(b.Records.ServeTransaction)))
	if b.Auth != nil {
		mux.HandleFunc(authPrefix, notFound)
		mux.HandleFunc(pagesPrefix, notFound)
		mux.Handle(authPrefix+"/", b.Auth.At(authPrefix))
		mux.Handle(pagesPrefix+"/", b.Auth.PagesAt(pagesPrefix))
		mux.HandleFunc("/.well-known/jwks.json", b.Auth.ServeJWKS)
	}
	if b.Realtime != nil {
		b.mountRealtime(mux)
	}
	mux.HandleFunc("/api/healthcheck", b.healthcheck)
	mux.Handle(openAPIPath, b.openAPIHandler())
}

// behindAuth returns next behind the sign-in, if there is one.
func (b *Backend) behindAuth(next http.Handler) http.Handler {
	if b.Auth == nil {
		return next
	}
	return b.Auth.Middleware(next)
}

// Handler returns all routes as one handler.
func (b *Backend) Handler() http.Handler { return b.handler }

// notFound answers as the protocol has it, without a body.
func notFound(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }

// healthcheck answers "Ok" while the database accepts writes.
func (b *Backend) healthcheck(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if b.DB.Err() != nil {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("Ok")) // the client is gone if this fails
}

// Serve listens on srv.Addr and serves until ctx ends, then ends all event
// streams and lets other running requests finish for up to
// Config.DrainTimeout. It returns nil after such an end. With srv.TLSConfig it
// serves TLS. It does not close the backend.
func (b *Backend) Serve(ctx context.Context, srv *http.Server) error {
	addr := srv.Addr
	if addr == "" {
		addr = ":http"
		if srv.TLSConfig != nil {
			addr = ":https"
		}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("bedplate: listen: %w", err)
	}
	return b.ServeListener(ctx, srv, ln)
}

// stuckTimeout is how long an HTTP/2 connection may take no byte.
const stuckTimeout = 30 * time.Second

// ServeListener is like Serve on a listener of the application's.
func (b *Backend) ServeListener(ctx context.Context, srv *http.Server, ln net.Listener) error {
	if b.Realtime != nil {
		srv.RegisterOnShutdown(b.Realtime.Drain)
		// No handler can end a stream of a connection that takes nothing at all.
		if srv.HTTP2 == nil {
			srv.HTTP2 = new(http.HTTP2Config)
		}
		if srv.HTTP2.WriteByteTimeout == 0 {
			srv.HTTP2.WriteByteTimeout = stuckTimeout
		}
	}
	served := make(chan error, 1)
	go func() {
		if srv.TLSConfig != nil {
			served <- srv.ServeTLS(ln, "", "")
		} else {
			served <- srv.Serve(ln)
		}
	}()
	select {
	case err := <-served:
		return fmt.Errorf("bedplate: serve: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.drain)
	defer cancel()
	err := srv.Shutdown(drain)
	if err != nil { // some requests would not end
		err = errors.Join(fmt.Errorf("bedplate: shut down: %w", err), srv.Close())
	}
	<-served
	return err
}

// Close ends all event streams and all background work, and closes the
// database, unless that is the application's own, and then the replicas. It
// waits for running operations.
func (b *Backend) Close() error {
	var err error
	if b.Realtime != nil {
		err = b.Realtime.Close()
	}
	if b.sweeper != nil {
		b.sweeper.stop()
	}
	if b.Auth != nil {
		err = errors.Join(err, b.Auth.Close())
	}
	if b.ownDB {
		err = errors.Join(err, b.DB.Close())
	}
	return errors.Join(err, b.closeReplicas())
}
