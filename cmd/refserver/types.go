package main

import (
	"bytes"
	"errors"
	"os"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// typesCommand prints declarations. Like the other commands about record APIs
// it needs no server and changes nothing.
type typesCommand struct {
	where
	Lang string `required:"" enum:"ts,go" help:"Language: ${enum}."`
	Out  string `placeholder:"FILE" help:"Write to this file rather than to standard output."`
}

func (c *typesCommand) Run(p *program) error {
	conf, err := c.apis(p)
	if err != nil {
		return err
	}
	return conf.inspect(p, true, func(db *sqlite.DB) error {
		var text bytes.Buffer
		if err := records.WriteTypes(p.ctx, &text, db, records.Config{APIs: conf.APIs, Files: &conf.Files}, c.Lang); err != nil {
			return conf.locate(err)
		}
		return p.output(c.Out, text.Bytes())
	})
}

// openapiCommand prints the OpenAPI document.
type openapiCommand struct {
	where
	Out string `placeholder:"FILE" help:"Write to this file rather than to standard output."`
}

func (c *openapiCommand) Run(p *program) error {
	conf, err := c.apis(p)
	if err != nil {
		return err
	}
	cfg := conf.backend(logger(p.stderr, 0))
	cfg.Files = &conf.Files
	return conf.inspect(p, true, func(db *sqlite.DB) error {
		document, err := bedplate.OpenAPI(p.ctx, db, cfg)
		if err != nil {
			return conf.locate(err)
		}
		return p.output(c.Out, append(document, '\n'))
	})
}

// output writes text to a file or, without a name, to standard output.
func (p *program) output(file string, text []byte) error {
	if file != "" {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		return errors.Join(err, f.Close())
	}
	_, err := p.stdout.Write(text)
	return err
}
