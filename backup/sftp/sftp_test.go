package sftp_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/sftp"
	"github.com/bedplate/bedplate/sqlite"
)

func TestRoundTripWithPassword(t *testing.T) {
	t.Parallel()
	address, key := serve(t, nil)
	u := "sftp://me@" + address + t.TempDir() + "/some/where?hostKey=" + url.QueryEscape(key)
	roundTrip(t, u, map[string]string{"SFTP_PASSWORD": "pass word"})
}

func TestRoundTripWithKey(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "id_ed25519")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	allowed, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	address, key := serve(t, allowed)
	// As it is often written: without %2B for the plus signs.
	u := "sftp://me@" + address + t.TempDir() + "?hostKey=" + strings.ReplaceAll(key, " ", "%20") + "&keyPath=" + url.QueryEscape(path)
	roundTrip(t, u, nil)
}

// A server with another key gets nothing.
func TestOtherHostKey(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, nil)
	_, other := serve(t, nil)
	r, err := backup.New(backup.Config{
		URL:    "sftp://me@" + address + t.TempDir() + "?hostKey=" + url.QueryEscape(other),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Credentials: func(context.Context) (map[string]string, error) {
			return map[string]string{"SFTP_PASSWORD": "pass word"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Points(t.Context()); err == nil || !strings.Contains(err.Error(), "host key mismatch") {
		t.Error(err)
	}
}

// serve starts a server that knows the user "me", by password or by a key, and returns its address
// and its host key.
func serve(t *testing.T, allowed ssh.PublicKey) (address, hostKey string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{}
	if allowed != nil {
		cfg.PublicKeyCallback = func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() != "me" || string(key.Marshal()) != string(allowed.Marshal()) {
				return nil, errors.New("no")
			}
			return nil, nil
		}
	} else {
		cfg.PasswordCallback = func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			if c.User() != "me" || string(password) != "pass word" {
				return nil, errors.New("no")
			}
			return nil, nil
		}
	}
	cfg.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serveConn(conn, cfg) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		all.Wait()
	})
	return listener.Addr().String(), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

func serveConn(conn net.Conn, cfg *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for wanted := range channels {
		if wanted.ChannelType() != "session" {
			_ = wanted.Reject(ssh.UnknownChannelType, "no")
			continue
		}
		channel, requests, err := wanted.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem" && strings.HasSuffix(string(r.Payload), "sftp"), nil)
			}
		}()
		go func() {
			defer channel.Close()
			if server, err := sftp.NewServer(channel); err == nil {
				_ = server.Serve()
			}
		}()
	}
}

// roundTrip replicates a database to url, restores it, and replicates on.
func roundTrip(t *testing.T, url string, credentials map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "app.db")
	db, err := sql.Open(sqlite.DriverName, path+"?_journal_mode=WAL&_busy_timeout=10000&_synchronous=NORMAL")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "PRAGMA wal_autocheckpoint = 16384; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"); err != nil {
		t.Fatal(err)
	}
	cfg := backup.Config{
		URL: url, FinalSync: time.Minute, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Credentials: func(context.Context) (map[string]string, error) { return credentials, nil },
	}
	rows := 0
	for range 2 {
		r, err := backup.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Start(ctx, path, "", nil); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := db.ExecContext(ctx, "INSERT INTO t (v) VALUES (hex(randomblob(3000)))"); err != nil {
				t.Fatal(err)
			}
			rows++
			if err := r.WaitReplicated(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if points, err := r.Points(ctx); err != nil || len(points) == 0 {
			t.Errorf("%d points, %v", len(points), err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if n := restoredRows(ctx, t, r); n != rows {
			t.Errorf("%d rows, want %d", n, rows)
		}
	}
}

func restoredRows(ctx context.Context, t *testing.T, r *backup.Replica) (n int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.db")
	if _, err := r.Restore(ctx, path, backup.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open(sqlite.DriverName, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
