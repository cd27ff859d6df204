-- Sessions.

create function {s}.rg_load(
    p_known bytea, p_id uuid,
    out o_status text, out o_version smallint, out o_revision bigint, out o_confirmed boolean, out o_revoked smallint,
    out o_record bytea, out o_op bytea
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    select 'found', version, revision, confirmed, revoked, record, op
        into o_status, o_version, o_revision, o_confirmed, o_revoked, o_record, o_op
        from {s}.session where id = p_id;
    if not found then
        o_status := 'none';
    end if;
end
$$;

create function {s}.rg_list(p_known bytea, p_subject bytea, p_after uuid, p_limit integer) returns table (
    o_status text, o_id uuid, o_version smallint, o_revision bigint, o_confirmed boolean, o_revoked smallint,
    o_record bytea
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    if p_subject is null then
        return query select 'found', id, version, revision, confirmed, revoked, record
            from {s}.session where p_after is null or id > p_after order by id limit p_limit;
    else
        return query select 'found', id, version, revision, confirmed, revoked, record
            from {s}.session where subject = p_subject and (p_after is null or id > p_after) order by id limit p_limit;
    end if;
end
$$;

create function {s}.rg_insert(
    p_known bytea, p_op bytea, p_id uuid, p_revision bigint, p_current bigint, p_confirmed boolean, p_revoked smallint,
    p_created bigint, p_expires bigint, p_access_expires bigint, p_issued bigint, p_ends bigint, p_subject bytea,
    p_client bytea, p_record bytea, p_not_befores bytea[], p_most bigint, p_idle bigint, p_now bigint, p_refuses boolean,
    p_leeway bigint, p_reason smallint, p_prefix bytea, p_at_once integer,
    out o_status text, out o_moment bytea, out o_ids uuid[], out o_effects bytea[], out o_untils bigint[]
) language plpgsql as $$
declare
    known {s}.session%rowtype;
    live integer;
    over bigint;
    one uuid;
    till bigint;
begin
    perform {s}.rg_begin(p_known, true);
    perform pg_advisory_xact_lock_shared(hashtext('{s}'), 1);
    if p_most is not null then
        perform pg_advisory_xact_lock(hashtext('{s}' || encode(p_subject, 'hex')), 4);
    end if;
    select * into known from {s}.session where id = p_id;
    if found then
        if known.op <> p_op then
            o_status := 'exists';
            return;
        end if;
        perform {s}.rg_touch();
        o_ids := coalesce(known.gave_way, '{}');
    else
        -- What may have revoked it is swept an hour after it ended.
        if p_created + 3600000 < {s}.rg_now() then
            o_status := 'old';
            return;
        end if;
        o_moment := {s}.rg_moment(p_not_befores || p_client);
        if o_moment is not null and int8send(p_created) <= o_moment then
            o_status := 'late';
            return;
        end if;
        o_ids := '{}';
        if p_most is not null then
            select array_agg(id order by id) into o_ids from (
                select s.id from {s}.session s
                where s.subject = p_subject and s.version = 1 and s.revoked is null
                    and s.expires > p_now and {s}.rg_plus(s.issued, p_idle) > p_now
                    and not coalesce(int8send(s.created) <= {s}.rg_moment(p_not_befores || s.client), false)
                order by s.id for update
            ) as held;
            o_ids := coalesce(o_ids, '{}');
            live := cardinality(o_ids);
            over := greatest(live + 1 - p_most, 0);
            if over > 0 and p_refuses then
                o_status := 'many';
                return;
            end if;
            o_ids := o_ids[1 : least(over, p_at_once, live)::integer];
            foreach one in array o_ids loop
                update {s}.session set revoked = p_reason, revision = revision + 1, ends = access_expires
                    where id = one returning access_expires into till;
                perform {s}.rg_absorb(p_prefix || uuid_send(one), p_prefix || uuid_send(one),
                    '\x4dffffffffffffffff00000000000000000000000000000000'::bytea, {s}.rg_plus(till, p_leeway));
            end loop;
        end if;
        insert into {s}.session values (
            p_id, 1, p_revision, p_current, p_confirmed, p_revoked, p_created, p_expires, p_access_expires, p_issued,
            p_ends, p_subject, p_client, p_op, substr(p_known, 1, 8), nullif(o_ids, '{}'), p_record
        ) on conflict (id) do nothing;
        if not found then
            -- Another sent the same a moment before, or another session has the id.
            select * into strict known from {s}.session where id = p_id;
            if known.op <> p_op then
                raise exception 'there is a session with that id' using errcode = 'unique_violation';
            end if;
        end if;
    end if;
    o_status := 'inserted';
    select array_agg(r.effect order by e.n), array_agg(r.until order by e.n) into o_effects, o_untils
        from unnest(o_ids) with ordinality as e (id, n) left join {s}.revocation r on r.key = p_prefix || uuid_send(e.id);
end
$$;

create function {s}.rg_swap(
    p_known bytea, p_op bytea, p_id uuid, p_expected bigint, p_revision bigint, p_current bigint, p_confirmed boolean,
    p_revoked smallint, p_expires bigint, p_access_expires bigint, p_issued bigint, p_ends bigint, p_subject bytea,
    p_client bytea, p_record bytea, p_not_befores bytea[], p_key bytea, p_target bytea, p_effect bytea, p_until bigint,
    out o_status text, out o_version smallint, out o_revision bigint, out o_confirmed boolean, out o_revoked smallint,
    out o_record bytea, out o_logged boolean
) language plpgsql as $$
declare
    known {s}.session%rowtype;
begin
    o_logged := false;
    perform {s}.rg_begin(p_known, true);
    perform pg_advisory_xact_lock_shared(hashtext('{s}'), 1);
    select * into known from {s}.session where id = p_id for update;
    if not found then
        o_status := 'none';
        return;
    end if;
    o_version := known.version;
    if known.version <> 1 then
        o_status := 'version';
        return;
    end if;
    if known.op = p_op then
        perform {s}.rg_touch();
        o_status := 'swapped';
        return;
    end if;
    if known.revoked is not null or known.revision <> p_expected then
        o_status := 'changed';
        o_revision := known.revision;
        o_confirmed := known.confirmed;
        o_revoked := known.revoked;
        o_record := known.record;
        return;
    end if;
    if known.subject <> p_subject or known.client <> p_client then
        o_status := 'moved';
        return;
    end if;
    if coalesce(int8send(known.created) <= {s}.rg_moment(p_not_befores || known.client), false) then
        o_status := 'late';
        return;
    end if;
    update {s}.session set
        revision = p_revision, current = p_current, confirmed = p_confirmed, revoked = p_revoked, expires = p_expires,
        access_expires = p_access_expires, issued = p_issued, ends = p_ends, op = p_op, history = substr(p_known, 1, 8),
        gave_way = null, record = p_record
        where id = p_id;
    if p_key is not null then
        select a.o_changed into o_logged from {s}.rg_absorb(p_key, p_target, p_effect, p_until) a;
    end if;
    o_status := 'swapped';
end
$$;

create function {s}.rg_confirm(
    p_known bytea, p_ids uuid[], p_generations bigint[], out o_status text, out o_marked uuid[], out o_unreadable uuid[]
) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, true);
    -- In the order in which everything locks them.
    perform 1 from {s}.session where id = any(p_ids) order by id for update;
    with marked as (
        update {s}.session s set confirmed = true, revision = s.revision + 1
            from unnest(p_ids, p_generations) as seen (id, generation)
            where s.id = seen.id and s.version = 1 and s.revoked is null and not s.confirmed
                and s.current = seen.generation
            returning s.id
    )
    select coalesce(array_agg(id), '{}') into o_marked from marked;
    select coalesce(array_agg(id), '{}') into o_unreadable from {s}.session where id = any(p_ids) and version <> 1;
    o_status := 'confirmed';
end
$$;
