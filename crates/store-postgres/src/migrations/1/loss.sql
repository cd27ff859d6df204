-- After a loss of acknowledged writes.

-- Gives the data a new history, unless another node has. Every write under the earlier one is done or fails by then.
create function {s}.rg_adopt(
    p_known bytea, p_new bytea, p_store bytea,
    out o_status text, out o_history bytea, out o_server text, out o_written bigint, out o_writes bigint
) language plpgsql as $$
declare
    known {s}.head%rowtype;
begin
    perform {s}.rg_settings();
    perform pg_advisory_xact_lock(hashtext('{s}'), 5);
    select * into known from {s}.head for update;
    if not found then
        o_status := 'headless';
        return;
    end if;
    if known.store <> p_store then
        o_status := 'differs';
        return;
    end if;
    o_status := 'adopted';
    o_history := known.history;
    if known.history = substr(p_known, 1, 8) then
        o_history := p_new;
        update {s}.head set history = p_new, adopted = {s}.rg_now();
    else
        perform {s}.rg_touch();
    end if;
    select last_value into o_writes from {s}.writes;
    o_server := {s}.rg_server();
    o_written := {s}.rg_written();
end
$$;

-- Writes a record back that was lost.
create function {s}.rg_restore(
    p_known bytea, p_op bytea, p_id uuid, p_revision bigint, p_current bigint, p_confirmed boolean, p_revoked smallint,
    p_created bigint, p_expires bigint, p_access_expires bigint, p_issued bigint, p_ends bigint, p_subject bytea,
    p_client bytea, p_record bytea, p_not_befores bytea[], p_key bytea,
    out o_status text, out o_version smallint
) language plpgsql as $$
declare
    known {s}.session%rowtype;
    is_known boolean;
    -- The history of what was written back: none of the data's.
    earlier constant bytea := '\x0000000000000000';
begin
    perform {s}.rg_begin(p_known, true);
    perform pg_advisory_xact_lock_shared(hashtext('{s}'), 1);
    -- A session without a row has no other lock.
    perform pg_advisory_xact_lock(hashtext('{s}' || p_id), 6);
    select * into known from {s}.session where id = p_id for update;
    is_known := found;
    if is_known and known.version <> 1 then
        o_version := known.version;
        o_status := 'version';
        return;
    end if;
    o_status := 'had';
    -- Not lost; or changed since the loss. What another node wrote back has no history: the later record stays.
    if p_revoked is not null or is_known and (
        known.revoked is not null or (known.current, known.revision) >= (p_current, p_revision)
        or known.history = substr(p_known, 1, 8)
    ) then
        perform {s}.rg_touch();
        return;
    end if;
    if is_known and (known.subject <> p_subject or known.client <> p_client) then
        o_status := 'moved';
        return;
    end if;
    if p_ends + 3600000 < {s}.rg_now()
        or exists (
            select 1 from {s}.revocation
            where key = p_key and (get_byte(effect, 0) <> 77 or substr(effect, 2, 8) = '\xffffffffffffffff'::bytea)
        )
        or coalesce(int8send(p_created) <= {s}.rg_moment(p_not_befores || p_client), false) then
        return;
    end if;
    if is_known then
        -- A note of use may have raised the revision of an earlier generation since.
        update {s}.session set
            revision = greatest(p_revision, known.revision + 1), current = p_current, confirmed = p_confirmed,
            expires = p_expires, access_expires = p_access_expires, issued = p_issued, ends = p_ends, op = p_op,
            history = earlier, gave_way = null, record = p_record
            where id = p_id;
    else
        insert into {s}.session values (
            p_id, 1, p_revision, p_current, p_confirmed, null, p_created, p_expires, p_access_expires, p_issued, p_ends,
            p_subject, p_client, p_op, earlier, null, p_record
        );
    end if;
    o_status := 'restored';
end
$$;

-- That a node has written back what it knew, and whether all have.
create function {s}.rg_restoration(
    p_known bytea, p_node bytea, p_patience bigint,
    out o_status text, out o_adopted bigint, out o_complete boolean
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, true);
    o_status := 'restoration';
    select adopted into strict o_adopted from {s}.head;
    if o_adopted = 0 then
        o_complete := true;
        return;
    end if;
    -- What it says of itself comes with its next beat.
    insert into {s}.node values (p_node, {s}.rg_now(), '{}', substr(p_known, 1, 8))
        on conflict (id) do update set restored = excluded.restored
        where node.restored is distinct from excluded.restored;
    o_complete := {s}.rg_now() >= {s}.rg_plus(o_adopted, p_patience) or not exists (
        select 1 from {s}.node
        where id <> p_node and {s}.rg_plus(beat, p_patience) >= o_adopted
            and restored is distinct from substr(p_known, 1, 8)
    );
end
$$;

create function {s}.rg_predates(p_known bytea, p_id uuid, out o_status text, out o_predates boolean)
language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    o_status := 'predates';
    o_predates := (select adopted from {s}.head) > 0
        and exists (select 1 from {s}.session where id = p_id and history <> substr(p_known, 1, 8));
end
$$;
