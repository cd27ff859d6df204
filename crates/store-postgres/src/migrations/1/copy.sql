-- A copy of another store, and the store whose time is reset.

-- Puts a record of another store, unless the one that is there is later.
create function {s}.rg_put(
    p_known bytea, p_op bytea, p_id uuid, p_revision bigint, p_current bigint, p_confirmed boolean, p_revoked smallint,
    p_created bigint, p_expires bigint, p_access_expires bigint, p_issued bigint, p_ends bigint, p_subject bytea,
    p_client bytea, p_record bytea, out o_status text
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, true);
    o_status := 'whole';
    if not exists (select 1 from {s}.head where copying is not null) then
        return;
    end if;
    o_status := 'put';
    -- A session without a row has no other lock.
    perform pg_advisory_xact_lock(hashtext('{s}' || p_id), 6);
    perform {s}.rg_touch();
    if exists (
        select 1 from {s}.session where id = p_id and version = 1
            and (revoked is not null, current, revision) > (p_revoked is not null, p_current, p_revision)
    ) then
        return;
    end if;
    delete from {s}.session where id = p_id;
    insert into {s}.session values (
        p_id, 1, p_revision, p_current, p_confirmed, p_revoked, p_created, p_expires, p_access_expires, p_issued, p_ends,
        p_subject, p_client, p_op, substr(p_known, 1, 8), null, p_record
    );
end
$$;

-- A copy is whole. What was being put is there by then.
create function {s}.rg_end_copy(p_known bytea, out o_status text) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    perform pg_advisory_xact_lock(hashtext('{s}'), 5);
    update {s}.head set copying = null;
    o_status := 'whole';
end
$$;

-- The latest time that is remembered. If p_lowers, none later than now is from then on.
create function {s}.rg_lower(p_known bytea, p_lowers boolean, out o_status text, out o_latest bigint)
language plpgsql as $$
declare
    moment bigint;
begin
    perform {s}.rg_begin(p_known, p_lowers);
    select greatest(last, (select adopted from {s}.head)) into strict o_latest from {s}.stamp;
    o_status := 'lowered';
    if not p_lowers then
        return;
    end if;
    moment := {s}.rg_now();
    -- What begins is later than the not-befores of now.
    update {s}.stamp set last = moment + 1;
    update {s}.head set adopted = least(adopted, moment);
    delete from {s}.node;
    delete from {s}.change;
    update {s}.revocation set effect = '\x4e'::bytea || int8send(moment) || substr(effect, 10)
        where get_byte(effect, 0) = 78 and substr(effect, 2, 8) > int8send(moment);
    update {s}.revocation_log set written = least(written, moment);
end
$$;
