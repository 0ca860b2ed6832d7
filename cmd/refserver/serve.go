package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth/mail"
	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/cmd/refserver/demo"
	"github.com/bedplate/bedplate/internal/httpx"
	"github.com/bedplate/bedplate/sqlite"
)

// serveCommand holds the flags of serve, or else their environment variables.
// A zero value means that neither was given: the configuration file decides,
// and the default after it.
type serveCommand struct {
	where
	backupFlags
	tlsFlags
	Listen           string        `env:"BEDPLATE_LISTEN" placeholder:"ADDR" help:"Address to listen on, host:port (${env}; default 127.0.0.1:4000)."`
	CORSOrigins      []string      `name:"cors-allowed-origins" env:"BEDPLATE_CORS_ALLOWED_ORIGINS" placeholder:"ORIGIN" help:"Origin whose pages may call the API; repeatable; * allows all, none forbids (${env}; default *)."`
	SiteURL          string        `name:"site-url" env:"BEDPLATE_SITE_URL" placeholder:"URL" help:"Public scheme and host, in links of mails and callbacks (${env}; default http:// or https:// and the address to listen on, or the first of --acme-domains)."`
	RequestSizeLimit int64         `name:"request-size-limit-bytes" env:"BEDPLATE_REQUEST_SIZE_LIMIT_BYTES" placeholder:"BYTES" help:"Largest request body (${env}; default 10 MiB)."`
	BackupInterval   time.Duration `env:"BEDPLATE_BACKUP_INTERVAL" placeholder:"DURATION" help:"Take local snapshots of the databases this often (${env}; default 24h with --backup-dir, or else never)."`
	BackupKeep       int           `env:"BEDPLATE_BACKUP_KEEP" placeholder:"DAYS" help:"Keep one snapshot of each of so many days (${env}; default 7)."`
	RestoreIfMissing bool          `default:"true" negatable:"" env:"BEDPLATE_RESTORE_IF_MISSING" help:"Restore a database that is missing from its replica. Otherwise that is an error, unless the replica is empty (${env}; default true)."`
}

// where is what all commands need to know.
type where struct {
	DataDir string `env:"BEDPLATE_DATA_DIR" placeholder:"DIR" help:"Directory of the databases (${env}; default ./data)."`
	Config  string `env:"BEDPLATE_CONFIG" placeholder:"FILE" help:"YAML file with record APIs, migrations and settings; without it the demo is served (${env})."`
}

// Defaults of the settings that no flag, variable or file gives.
const (
	defaultListen  = "127.0.0.1:4000"
	defaultDataDir = "data"
)

// load reads the configuration file, if there is one.
func (w *where) load() (*config, error) {
	conf := &config{}
	if w.Config != "" {
		var err error
		if conf, err = loadConfig(w.Config); err != nil {
			return nil, err
		}
	}
	override(&conf.DataDir, w.DataDir, defaultDataDir)
	return conf, nil
}

// settings joins flags and environment with the configuration file. The
// former win, because the file only fills what they left empty.
func (c *serveCommand) settings() (*config, error) {
	conf, err := c.load()
	if err != nil {
		return nil, err
	}
	if c.SiteURL != "" {
		delete(conf.places, siteURLPlace) // a mistake in it is not one of the file
	}
	override(&conf.SiteURL, c.SiteURL, "") // the default needs the listener
	override(&conf.Listen, c.Listen, defaultListen)
	override(&conf.RequestSizeLimit, c.RequestSizeLimit, 0)
	if c.RequestSizeLimit < 0 {
		return nil, fmt.Errorf("request size limit %d is negative", c.RequestSizeLimit)
	}
	if err := errors.Join(c.setBackups(conf), c.applyTLS(conf)); err != nil {
		return nil, err
	}
	switch {
	case len(c.CORSOrigins) > 0:
		conf.CORSOrigins = c.CORSOrigins
	case conf.CORSOrigins == nil:
		conf.CORSOrigins = []string{"*"}
	}
	if len(conf.CORSOrigins) == 1 && conf.CORSOrigins[0] == "none" {
		conf.CORSOrigins = nil
	}
	return conf, nil
}

// override sets *v to given if that is not zero, and to def if nothing else
// is known.
func override[T comparable](v *T, given, def T) {
	var zero T
	if given != zero {
		*v = given
	}
	if *v == zero {
		*v = def
	}
}

// Run serves until p.ctx ends, then drains.
func (c *serveCommand) Run(p *program) error {
	conf, err := c.settings()
	if err != nil {
		return err
	}
	defer conf.outlastHangups()()
	ctx, fence := context.WithCancelCause(p.ctx)
	defer fence(nil)
	b, err := conf.newBackups(logger(p.stderr, slog.LevelInfo), fence)
	if err != nil {
		return err
	}
	if err := conf.makeDirectories(); err != nil {
		return err
	}
	if err := b.open(); err != nil {
		return err
	}
	defer b.close()
	return fenced(ctx, c.serve(ctx, p, conf, b))
}

// fenced puts first that another machine has taken over, if ctx has ended for that.
func fenced(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, backup.ErrFenced) && !errors.Is(err, backup.ErrFenced) {
		return errors.Join(cause, err)
	}
	return err
}

// serve serves until ctx ends.
func (c *serveCommand) serve(ctx context.Context, p *program, conf *config, b *backups) error {
	log := b.log
	cors, err := httpx.NewCORS(conf.CORSOrigins...)
	if err != nil {
		return err
	}
	isDemo := c.Config == ""
	if isDemo {
		if err := useDemo(ctx, conf); err != nil {
			return err
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", conf.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	override(&conf.SiteURL, "", conf.publicURL(localURL(conf.Listen, listener.Addr())))
	files, closeFiles, err := conf.openFiles()
	if err != nil {
		return conf.locate(err)
	}
	defer closeFiles()
	options := conf.backend(log)
	options.Files = files
	b.complete(&options)
	backend, err := bedplate.Open(ctx, options)
	if err != nil {
		return conf.locate(err)
	}
	defer backend.Close()
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	secured, err := conf.openTLS(ctx, log, backend.DB, fail)
	if err != nil {
		return err
	}
	defer secured.close() //nolint:errcheck // it is told below, where nothing else has failed
	b.serving(backend.DB)
	defer b.endSnapshots() // before the database is closed

	url := conf.TLS.scheme() + "://" + listener.Addr().String()
	log.Info("listening", "url", url, "data_dir", conf.DataDir, "apis", len(conf.APIs))
	if isDemo {
		demo.Banner(p.stdout, url, conf.DataDir)
	}
	if secured != nil {
		fmt.Fprint(p.stdout, secured.hint)
	}
	if backend.Auth != nil {
		link, err := backend.Auth.SetupLink(ctx)
		if err != nil {
			return err
		}
		if link != "" {
			fmt.Fprintf(p.stdout, "There is no administrator yet. Make one within 15 minutes: %s\n", link)
		}
	}
	srv := server(ctx, backend, cors, log)
	secured.secure(srv)
	err = backend.ServeListener(ctx, srv, listener)
	b.endSnapshots()
	return errors.Join(err, secured.close(), backend.Close())
}

// localURL is where somebody on this machine reaches a server that was told
// to listen on address and got addr.
func localURL(address string, addr net.Addr) string {
	host, _, _ := net.SplitHostPort(address) // it is being listened on
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	_, port, _ := net.SplitHostPort(addr.String()) // which is of TCP
	return "http://" + net.JoinHostPort(strings.ToLower(host), port)
}

// makeDirectories makes the data directory, and the one for the master key if
// there is a sign-in, or certificates are kept. Nobody else can look into those that it makes.
func (conf *config) makeDirectories() error {
	dir := conf.DataDir
	if conf.Auth != nil || conf.TLS.Mode == modeACME {
		dir = filepath.Dir(conf.keyFile())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	return nil
}

func (conf *config) keyFile() string { return filepath.Join(conf.DataDir, "secrets", "master.key") }

func (conf *config) mainFile() string { return conf.databaseFile("main") }

// server is the HTTP server around the handlers of backend. Reading and
// writing have no overall limit, as uploads and event streams may take long.
func server(ctx context.Context, backend *bedplate.Backend, cors *httpx.CORS, log *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	backend.Mount(mux)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { health(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ctx.Err() != nil {
			health(w, errors.New("draining"))
			return
		}
		health(w, backend.DB.Err())
	})
	return &http.Server{
		Handler:           cors.Handler(httpx.Quiet(mux)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// health answers a probe: 200 without a problem, 503 with one.
func health(w http.ResponseWriter, problem error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if problem != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "%v\n", problem)
		return
	}
	fmt.Fprintln(w, "ok")
}

// useDemo completes conf with the built-in schema, unless the data directory
// holds somebody's own database.
func useDemo(ctx context.Context, conf *config) error {
	path := conf.mainFile()
	_, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("look for the database: %w", err)
	default:
		is, err := demo.Recognize(ctx, path)
		if err != nil {
			return fmt.Errorf("look into %s: %w", path, err)
		}
		if !is {
			return fmt.Errorf("%s is not the demo: name its record APIs in a file and start with --config FILE", path)
		}
	}
	conf.Migrations = map[string]fs.FS{"main": demo.Migrations()}
	conf.APIs = demo.APIs()
	return nil
}

// backend is conf as the library takes it, but for the files.
func (conf *config) backend(log *slog.Logger) bedplate.Config {
	c := bedplate.Config{
		Path:       conf.mainFile(),
		SQLite:     sqlite.Options{Schemas: conf.Schemas, ChangeLog: conf.ChangeLog, Replicated: conf.replicated(), Logger: log},
		Migrations: conf.Migrations["main"],
		Records:    conf.APIs,
		BodyLimit:  conf.RequestSizeLimit,
		Logger:     log,
	}
	if conf.subscribable() {
		rt := conf.Realtime
		rt.Proxies, rt.TrustedProxies = int(conf.Proxies), conf.TrustedProxies
		c.Realtime = &rt
	}
	if conf.Auth != nil {
		a := *conf.Auth
		a.AppName, a.SiteURL, a.Mailer = conf.AppName, conf.SiteURL, conf.Mailer
		a.Proxies, a.TrustedProxies = int(conf.Proxies), conf.TrustedProxies
		a.KeyFile = conf.keyFile()
		if a.Mailer == nil {
			a.Mailer = mail.NewLog(log)
		}
		c.Auth = &a
	}
	for _, name := range conf.Databases {
		c.Databases = append(c.Databases, bedplate.Database{
			Name: name, Path: conf.databaseFile(name), Migrations: conf.Migrations[name],
		})
	}
	return c
}

// logger writes text for people at a terminal and JSON for everything else.
func logger(w io.Writer, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return slog.New(slog.NewTextHandler(w, options))
		}
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
