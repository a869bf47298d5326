-- The bindings of all phones, as Asterisk 22 writes them (qualify_2xx_only is new there); the table that Asterisk's
-- own contrib/ast-db-manage makes, which no Debian package has.
CREATE TABLE ps_contacts (
    id VARCHAR(255) NOT NULL UNIQUE,
    uri VARCHAR(511),
    expiration_time BIGINT,
    qualify_frequency INTEGER,
    qualify_timeout FLOAT,
    qualify_2xx_only VARCHAR(5),
    authenticate_qualify VARCHAR(5),
    outbound_proxy VARCHAR(255),
    path TEXT,
    user_agent VARCHAR(255),
    endpoint VARCHAR(255),
    reg_server VARCHAR(255),
    via_addr VARCHAR(40),
    via_port INTEGER,
    call_id VARCHAR(255),
    prune_on_boot VARCHAR(5),
    UNIQUE (id, reg_server)
);
CREATE INDEX ps_contacts_qualifyfreq_exp ON ps_contacts (qualify_frequency, expiration_time);
