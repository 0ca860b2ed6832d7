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
	"os"
	"path/filepath"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/cmd/refserver/demo"
	"github.com/bedplate/bedplate/internal/httpx"
	"github.com/bedplate/bedplate/sqlite"
)

// serveCommand holds the flags of serve, or else their environment variables.
// A zero value means that neither was given: the configuration file decides,
// and the default after it.
type serveCommand struct {
	Listen           string   `env:"BEDPLATE_LISTEN" placeholder:"ADDR" help:"Address to listen on, host:port (${env}; default 127.0.0.1:4000)."`
	DataDir          string   `env:"BEDPLATE_DATA_DIR" placeholder:"DIR" help:"Directory of the databases, made if missing (${env}; default ./data)."`
	Config           string   `env:"BEDPLATE_CONFIG" placeholder:"FILE" help:"YAML file with record APIs, migrations and settings; without it the demo is served (${env})."`
	CORSOrigins      []string `name:"cors-allowed-origins" env:"BEDPLATE_CORS_ALLOWED_ORIGINS" placeholder:"ORIGIN" help:"Origin whose pages may call the API; repeatable; * allows all, none forbids (${env}; default *)."`
	RequestSizeLimit int64    `name:"request-size-limit-bytes" env:"BEDPLATE_REQUEST_SIZE_LIMIT_BYTES" placeholder:"BYTES" help:"Largest request body (${env}; default 10 MiB)."`
}

// Defaults of the settings that no flag, variable or file gives.
const (
	defaultListen  = "127.0.0.1:4000"
	defaultDataDir = "data"
)

// settings joins flags and environment with the configuration file. The
// former win, because the file only fills what they left empty.
func (c *serveCommand) settings() (*config, error) {
	conf := &config{}
	if c.Config != "" {
		var err error
		if conf, err = loadConfig(c.Config); err != nil {
			return nil, err
		}
	}
	override(&conf.Listen, c.Listen, defaultListen)
	override(&conf.DataDir, c.DataDir, defaultDataDir)
	override(&conf.RequestSizeLimit, c.RequestSizeLimit, 0)
	if c.RequestSizeLimit < 0 {
		return nil, fmt.Errorf("request size limit %d is negative", c.RequestSizeLimit)
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

// run serves until ctx ends, then drains.
func (c *serveCommand) run(ctx context.Context, stdout io.Writer, log *slog.Logger) error {
	conf, err := c.settings()
	if err != nil {
		return err
	}
	cors, err := httpx.NewCORS(conf.CORSOrigins...)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(conf.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	isDemo := c.Config == ""
	if isDemo {
		if err := useDemo(ctx, conf); err != nil {
			return err
		}
	}
	backend, err := bedplate.Open(ctx, conf.backend(log))
	if err != nil {
		return conf.locate(err)
	}
	defer backend.Close()

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", conf.Listen)
	if err != nil {
		return err
	}
	url := "http://" + listener.Addr().String()
	log.Info("listening", "url", url, "data_dir", conf.DataDir, "apis", len(conf.APIs))
	if isDemo {
		demo.Banner(stdout, url, conf.DataDir)
	}
	return errors.Join(backend.ServeListener(ctx, server(ctx, backend, cors, log), listener), backend.Close())
}

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
	path := filepath.Join(conf.DataDir, "main.db")
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

// backend is conf as the library takes it.
func (conf *config) backend(log *slog.Logger) bedplate.Config {
	c := bedplate.Config{
		Path:       filepath.Join(conf.DataDir, "main.db"),
		SQLite:     sqlite.Options{Schemas: conf.Schemas, Logger: log},
		Migrations: conf.Migrations["main"],
		Records:    conf.APIs,
		BodyLimit:  conf.RequestSizeLimit,
		Logger:     log,
	}
	for _, name := range conf.Databases {
		c.Databases = append(c.Databases, bedplate.Database{
			Name: name, Path: filepath.Join(conf.DataDir, name+".db"), Migrations: conf.Migrations[name],
		})
	}
	return c
}

// logger writes text for people at a terminal and JSON for everything else.
func logger(w io.Writer) *slog.Logger {
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return slog.New(slog.NewTextHandler(w, nil))
		}
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}
