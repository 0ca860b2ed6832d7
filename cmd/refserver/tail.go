package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/bedplate/bedplate/realtime"
)

// tailCommand prints changes until it is interrupted or refused. It connects
// as often as it takes and goes on where it was.
type tailCommand struct {
	API       string   `arg:"" help:"Name of the record API."`
	URL       string   `env:"BEDPLATE_URL" default:"http://127.0.0.1:4000" placeholder:"URL" help:"Address of the server (${env}; default ${default})."`
	TokenFile string   `placeholder:"FILE" help:"File with a bearer token, such as an API key; it may be replaced meanwhile. Without it the token is in BEDPLATE_TOKEN, if there is one."`
	Record    string   `placeholder:"ID" help:"Only this record."`
	Filter    []string `sep:"none" placeholder:"CONDITION" help:"Only records like this, as in a list: 'rating=5' or 'rating[$gte]=4'; repeatable."`
	Since     string   `placeholder:"POSITION" help:"Begin behind this position rather than now: one that was printed, or the Change-Cursor header of a list."`
}

func (c *tailCommand) Run(p *program) error {
	filter, err := filterValues(c.Filter)
	if err != nil {
		return err
	}
	token, err := c.token()
	if err != nil {
		return err
	}
	out := json.NewEncoder(p.stdout)
	out.SetEscapeHTML(false)
	err = realtime.Subscribe(p.ctx, realtime.SubscribeOptions{
		URL: c.URL, API: c.API, Record: c.Record, Filter: filter, Since: c.Since,
		Token: token, Logger: logger(p.stderr, slog.LevelInfo),
	}, func(e realtime.Event) error { return out.Encode(line{e.Op, e.Data, e.Text, e.ID}) })
	var refusal *realtime.Error
	switch {
	case p.ctx.Err() != nil && errors.Is(err, p.ctx.Err()):
		return nil // interrupted, as there is no other end
	case errors.As(err, &refusal):
		return fmt.Errorf("the server refuses the changes of %q with status %d: %w", c.API, refusal.Status, err)
	}
	return err
}

// A line is an event as it is printed.
type line struct {
	Op       realtime.Op     `json:"op"`
	Record   json.RawMessage `json:"record,omitempty"`
	Text     string          `json:"text,omitempty"`
	Position string          `json:"position,omitempty"` // for --since
}

// token returns where the client gets its bearer token, nil for none. A file
// that cannot be read now is a mistake; later it may be about to be replaced.
func (c *tailCommand) token() (func(context.Context) (string, error), error) {
	if c.TokenFile == "" {
		token := os.Getenv("BEDPLATE_TOKEN") // no flag: others see those
		if token == "" {
			return nil, nil
		}
		return func(context.Context) (string, error) { return token, nil }, nil
	}
	read := func(context.Context) (string, error) {
		text, err := os.ReadFile(c.TokenFile)
		token := strings.TrimSpace(string(text))
		if err == nil && token == "" {
			err = fmt.Errorf("no token in %s", c.TokenFile)
		}
		return token, err
	}
	_, err := read(context.Background())
	return read, err
}

// filterValues turns conditions such as "rating[$gte]=4" into the parameters
// of a list request.
func filterValues(conditions []string) (url.Values, error) {
	values := url.Values{}
	for _, condition := range conditions {
		key, value, ok := strings.Cut(condition, "=")
		column, operators, has := strings.Cut(key, "[")
		if has {
			operators = "[" + operators
		}
		if !ok || column == "" || has && !strings.HasSuffix(operators, "]") {
			return nil, fmt.Errorf("filter %q: write column=value or column[$operator]=value", condition)
		}
		values.Add("filter["+column+"]"+operators, value)
	}
	return values, nil
}
