package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

// inbox is a mailer that hands mails to the test.
type inbox chan auth.Message

func (i inbox) Send(_ context.Context, m auth.Message) error {
	i <- m
	return nil
}

func TestSite(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mails, ended := make(inbox, 10), make(chan error, 1)
	go func() { ended <- run(ctx, filepath.Join(t.TempDir(), "site.db"), listener, mails) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	site := "http://" + listener.Addr().String()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: 2 * time.Minute}

	open := func(path string) string {
		t.Helper()
		return send(t, client, http.MethodGet, site+path, nil)
	}
	if page := open("/diary"); !strings.Contains(page, "password") {
		t.Fatalf("without a sign-in the diary is not the sign-in page: %s", page)
	}
	const email, password = "ada@example.com", "Correct.horse.7"
	send(t, client, http.MethodPost, site+"/api/auth/v1/register", url.Values{
		"email": {email}, "password": {password}, "password_repeat": {password},
	})
	var link string
	select {
	case m := <-mails:
		link = regexp.MustCompile(`http://\S+/confirm/\w+`).FindString(m.Text)
	case <-time.After(2 * time.Minute):
		t.Fatal("no mail")
	}
	send(t, client, http.MethodPost, link, url.Values{})
	page := send(t, client, http.MethodPost, site+"/api/auth/v1/login", url.Values{
		"email": {email}, "password": {password}, "redirect_uri": {"/diary"},
	})
	if !strings.Contains(page, "The diary of "+email) {
		t.Errorf("after the sign-in: %s", page)
	}
	if page := open("/admin"); strings.Contains(page, "diary") {
		t.Errorf("a user sees the page of administrators: %s", page)
	}
}

func send(t *testing.T, client *http.Client, method, url string, form url.Values) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
