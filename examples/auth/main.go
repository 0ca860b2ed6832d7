// Command auth is a plain website whose pages need a sign-in. It uses nothing
// else of this module.
//
//	go run ./examples/auth
//
// The program prints a link with which its first administrator is made. Mails
// are written to the log.
package main

import (
	"context"
	"fmt"
	"html"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/mail"
	"github.com/bedplate/bedplate/sqlite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err == nil {
		err = run(ctx, "site.db", listener, mail.NewLog(slog.Default()))
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string, listener net.Listener, mailer auth.Mailer) error {
	db, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	users, err := auth.New(ctx, db, auth.Config{
		SiteURL: "http://" + listener.Addr().String(),
		AppName: "Example",
		Mailer:  mailer,
	})
	if err != nil {
		return err
	}
	defer users.Close()
	if link, err := users.SetupLink(ctx); err != nil {
		return err
	} else if link != "" {
		fmt.Println("Make the first administrator:", link)
	}

	mux := http.NewServeMux()
	mux.Handle("/api/auth/v1/", users.At("/api/auth/v1"))
	mux.Handle("/_/auth/", users.PagesAt("/_/auth"))
	mux.HandleFunc("GET /{$}", home)
	mux.Handle("GET /diary", users.RequireUser(http.HandlerFunc(diary)))
	mux.Handle("GET /admin", users.RequireAdmin(http.HandlerFunc(diary)))

	srv := &http.Server{Handler: users.Middleware(mux), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	if err := srv.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

func home(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintln(w, `<p>Everybody sees this. <a href="/diary">The diary</a> needs a <a href="/_/auth/register">registration</a>.`)
}

func diary(w http.ResponseWriter, r *http.Request) {
	u := auth.FromContext(r.Context())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprintf(w, `<p>The diary of %s. <a href="/_/auth/profile">Account</a>`+"\n", html.EscapeString(u.Email))
}
