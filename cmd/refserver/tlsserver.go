package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/sqlite"
	"github.com/bedplate/bedplate/tlsauto"
)

// tlsServer is what makes the server one of HTTPS. The nil *tlsServer leaves it one of HTTP.
type tlsServer struct {
	conf    *config
	log     *slog.Logger
	manager *tlsauto.Manager
	hint    string // how to trust a development authority

	pool     *sql.DB      // of the store; nil without one
	redirect *http.Server // nil without a listener for it
	failed   chan error   // has room for the error of redirect

	unready atomic.Bool   // the server waits for certificates
	changed chan struct{} // the status is to be written at once
	end     context.CancelFunc
	work    sync.WaitGroup
}

// openTLS begins to look after certificates, until close. They are kept in db; a standby has none yet.
// fail is called if the server cannot go on.
func (conf *config) openTLS(ctx context.Context, log *slog.Logger, db *sqlite.DB, fail func()) (_ *tlsServer, err error) {
	if !conf.TLS.on() {
		return nil, nil
	}
	options, errs := conf.certificates()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	t := &tlsServer{conf: conf, log: log, failed: make(chan error, 1), changed: make(chan struct{}, 1), end: end}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	options.Logger = log
	options.Events = func(tlsauto.Event) { t.tell() }
	switch conf.TLS.Mode {
	case modeSelfSigned:
		options.Store = tlsauto.NewMemoryStore() // the authority is at hand: why keep anything
		if ca, ok := options.Issuers[0].(*tlsauto.DevCA); ok {
			t.hint = ca.TrustHint()
		}
	case modeACME:
		if options.Store, t.pool, err = conf.openStore(ctx, db); err != nil {
			return nil, err
		}
	}
	if t.manager, err = tlsauto.New(options); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(conf.tlsDir(), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for the status of certificates: %w", err)
	}
	if conf.TLS.RedirectAddress != "" && db != nil {
		if err := t.listen(ctx, fail); err != nil {
			return nil, err
		}
	}
	t.start(ctx)
	return t, nil
}

// openStore opens what keeps certificates in the database, so that they are in its backups.
func (conf *config) openStore(ctx context.Context, db *sqlite.DB) (tlsauto.Store, *sql.DB, error) {
	pool := sql.OpenDB(db.Connector())
	pool.SetMaxOpenConns(4)
	store, err := tlsauto.NewSQLStore(ctx, pool, tlsauto.SQLStoreConfig{KeyFile: conf.keyFile()})
	if err != nil {
		return nil, nil, errors.Join(err, pool.Close())
	}
	return store, pool, nil
}

// start looks after certificates, signals and the status.
func (t *tlsServer) start(ctx context.Context) {
	if within := t.conf.TLS.RequireReady; within > 0 {
		t.unready.Store(true)
		t.work.Go(func() {
			defer t.unready.Store(false)
			waiting, stop := context.WithTimeout(ctx, within)
			defer stop()
			if err := t.manager.WaitReady(waiting); err != nil && ctx.Err() == nil {
				t.log.Warn("ready without all certificates", "error", err)
			}
		})
	}
	t.work.Go(func() {
		if err := t.manager.Run(ctx); err != nil {
			t.log.Error("look after certificates", "error", err)
		}
	})
	hangups, stop := notifyHangups()
	t.work.Go(func() {
		defer stop()
		for {
			select {
			case <-hangups:
				t.manager.Reload()
			case <-ctx.Done():
				return
			}
		}
	})
	t.work.Go(func() { t.report(ctx) })
}

// outlastHangups keeps SIGHUP, by which operators have certificates looked at, from ending the process while nobody
// looks after certificates: before that, after it, and in a standby without any.
func (conf *config) outlastHangups() (stop func()) {
	if !conf.TLS.on() {
		return func() {}
	}
	_, stop = notifyHangups()
	return stop
}

func notifyHangups() (hangups <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// listen sends clients of HTTP to HTTPS, and answers challenges.
func (t *tlsServer) listen(ctx context.Context, fail func()) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", t.conf.TLS.RedirectAddress)
	if err != nil {
		return err
	}
	t.redirect = &http.Server{
		Handler:           t.manager.HTTPHandler(nil),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(t.log.Handler(), slog.LevelDebug),
	}
	t.log.Info("redirecting", "url", "http://"+listener.Addr().String())
	t.work.Go(func() {
		if err := t.redirect.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.failed <- fmt.Errorf("serve %s: %w", t.conf.TLS.RedirectAddress, err)
			fail()
		}
	})
	return nil
}

// secure makes srv a server of HTTPS.
func (t *tlsServer) secure(srv *http.Server) {
	if t == nil {
		return
	}
	srv.TLSConfig = t.manager.TLSConfig()
	if age := t.conf.TLS.HSTS; age > 0 && t.conf.TLS.Mode != modeSelfSigned { // a browser would remember it for localhost
		srv.Handler = tlsauto.HSTS(age, srv.Handler)
	}
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asks := r.Method == http.MethodGet || r.Method == http.MethodHead
		if asks && r.URL.Path == "/readyz" && t.unready.Load() {
			health(w, errors.New("waiting for certificates"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// tell has the status written soon.
func (t *tlsServer) tell() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// drainRedirect is how long requests for another address may take to finish.
const drainRedirect = 2 * time.Second

// close ends everything, and waits for that. It may be called again.
func (t *tlsServer) close() error {
	if t == nil {
		return nil
	}
	var errs []error
	if t.redirect != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainRedirect)
		defer cancel()
		if err := t.redirect.Shutdown(ctx); err != nil {
			errs = append(errs, t.redirect.Close())
		}
	}
	t.end()
	t.work.Wait()
	select {
	case err := <-t.failed:
		errs = append(errs, err)
	default:
	}
	if t.pool != nil {
		errs = append(errs, t.pool.Close())
		t.pool = nil
	}
	return errors.Join(errs...)
}
