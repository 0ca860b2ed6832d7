CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL, stock INTEGER NOT NULL CHECK (stock >= 0)) STRICT;
CREATE TABLE purchase (id INTEGER PRIMARY KEY, product INTEGER NOT NULL REFERENCES product, count INTEGER NOT NULL, email TEXT NOT NULL, total INTEGER NOT NULL) STRICT;
CREATE TABLE voucher (code TEXT PRIMARY KEY, product INTEGER NOT NULL REFERENCES product) STRICT;
INSERT INTO product (name, price, stock) VALUES ('Cup', 950, 5), ('Pot', 4900, 1);
INSERT INTO voucher (code, product) VALUES ('welcome', 2), ('again', 2), ('thanks', 1);
